"""The output folder of the tasks that use a checkpoint."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


def output_file(config: Config, *suffixes: str) -> Path:
    """The file of --output; TrainError for another suffix, for a file that exists, or if it cannot be written."""
    file, kinds = Path(config.run.output), " or ".join(suffixes)
    if not config.run.output:
        raise TrainError(f"--task {config.run.task}: give the file to write with --output, {kinds}")
    if file.suffix not in suffixes:
        raise TrainError(f"--output {file}: the suffix says what to write; give {kinds}")
    if file.exists():
        raise TrainError(f"--output {file}: exists already; delete it, or name another file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=file.parent):
            return file
    except OSError as error:
        raise TrainError(f"--output {file}: cannot be written: {error.strerror}") from None


@contextmanager
def written_to(file: Path) -> Iterator[None]:
    """Context for what writes the file of --output, or beside it; TrainError if that fails."""
    try:
        yield
    except BrokenPipeError:  # of the terminal
        raise
    except OSError as error:
        raise TrainError(f"--output {file}: cannot be written: {error.strerror}") from None


def write_json(config: Config, name: str, values: Mapping[str, Any]) -> None:
    """Write a file of results to the output folder; TrainError if it cannot be written."""
    file = make_output_dir(config) / name
    try:
        files.write_text(file, json.dumps(values, indent=1) + "\n")
    except OSError as error:
        raise TrainError(f"--output_dir {config.run_dir}: cannot be written: {error.strerror}") from None
    print(f"written: {file}")
