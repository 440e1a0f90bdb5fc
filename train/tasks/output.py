"""The output folder of the tasks that use a checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from convert import files
from train.config import Config
from train.errors import TrainError


def make_output_dir(config: Config) -> Path:
    """Make the output folder; TrainError if it cannot be written."""
    try:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=config.run_dir):
            return config.run_dir
    except OSError as error:
        raise TrainError(f"--output_dir {config.run_dir}: cannot be written: {error.strerror}") from None


def write_json(config: Config, name: str, values: Mapping[str, Any]) -> None:
    """Write a file of results to the output folder; TrainError if it cannot be written."""
    file = make_output_dir(config) / name
    try:
        files.write_text(file, json.dumps(values, indent=1) + "\n")
    except OSError as error:
        raise TrainError(f"--output_dir {config.run_dir}: cannot be written: {error.strerror}") from None
    print(f"written: {file}")
