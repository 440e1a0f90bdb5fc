"""The output folder of the tasks that use a checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from convert import files
from train.config import Config
from train.errors import TrainError, writing


def make_output_dir(config: Config) -> Path:
    """Make the output folder; TrainError if it cannot be written."""
    with writing(f"--output_dir {config.run_dir}"):
        config.run_dir.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=config.run_dir):
            return config.run_dir


def output_file(config: Config, *suffixes: str) -> Path:
    """The file of --output; TrainError for another suffix, for a file that exists, or if it cannot be written."""
    file, kinds = Path(config.run.output), " or ".join(suffixes)
    if not config.run.output:
        raise TrainError(f"--task {config.run.task}: give the file to write with --output, {kinds}")
    if file.suffix not in suffixes:
        raise TrainError(f"--output {file}: the suffix says what to write; give {kinds}")
    if file.exists():
        raise TrainError(f"--output {file}: exists already; delete it, or name another file")
    with writing(f"--output {file}"):
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=file.parent):
            return file


def write_json(config: Config, name: str, values: Mapping[str, Any]) -> None:
    """Write a file of results to the output folder; TrainError if it cannot be written."""
    file = make_output_dir(config) / name
    with writing(f"--output_dir {config.run_dir}"):
        files.write_text(file, json.dumps(values, indent=1) + "\n")
    print(f"written: {file}")
