"""The data of a run, read from its directory."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from train.config import cli
from train.config.config import FLAGS, Config, format_value, quoted, titled
from train.config.recipes import TASKS, Layer
from train.config.resolve import resolve
from train.errors import TrainError

NAMED = ("task", "recipe", "data_path", "images")  # flags on which the defaults of others depend


class Value(NamedTuple):
    """A flag: its value in the run, its default, and the source of the value."""

    flag: str
    value: str
    default: str
    origin: str


@dataclass(frozen=True)
class RunData:
    """Configuration, header lines, metrics, pictures and files of confusion matrices of a run."""

    folder: Path
    config: Config
    about: list[str]
    lines: list[dict[str, float]]
    pictures: list[Path]
    confusions: list[Path]

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """The epochs at which a metric was logged, and its values."""
        points = [(line["epoch"], line[name]) for line in self.lines if name in line]
        return [epoch for epoch, _ in points], [value for _, value in points]

    def last(self, name: str) -> float | None:
        return next((line[name] for line in reversed(self.lines) if name in line), None)

    def values(self) -> list[Value]:
        """Every flag of the task in the order of --help; the source is a recipe, a default, or "given"."""
        values = self.config.used_flags()
        named: dict[str, Any] = {name: values[name] for name in NAMED if name in values}
        expected, origins = resolve([Layer("given", named)], strict=False)
        task = TASKS[values["task"]].values
        standard = expected.flags()
        found = []
        for name, value in values.items():
            origin = origins[name] if value == standard[name] else "given"
            found.append(Value(name, format_value(value), format_value(task.get(name, FLAGS[name].default)), origin))
        return found

    def command(self) -> str:
        """A command line that starts the same run: the flags that differ from what they would be without it."""
        values = self.config.used_flags()
        words = ["python -m train"]
        unused = "" if values["slurm"] else "slurm"
        for name in (value.flag for value in self.values() if value.origin == "given"):
            if FLAGS[name].group != unused and (values[name] != FLAGS[name].default or name not in NAMED):
                words.append(f"--{name} {quoted(values[name])}")
        return " ".join(words)


def load(folder: Path) -> RunData:
    """Read a run directory; TrainError if the folder is not one."""
    file = folder / "config.toml"
    if not file.is_file():
        raise TrainError(f"{folder}: not a run directory, it has no config.toml")
    config = cli.read_run(file)
    titles = {f"# {title}" for title, _ in titled()}
    lines = file.read_text(encoding="utf-8").splitlines()
    about = takewhile(lambda line: line.startswith("# ") and line not in titles, lines)
    return RunData(
        folder,
        config,
        [line.removeprefix("# ") for line in about],
        _lines(folder / "metrics.jsonl"),
        sorted(folder.glob("pictures/step-*.png")),
        sorted(folder.glob("confusion*.csv")),
    )


def _lines(file: Path) -> list[dict[str, float]]:
    """The metrics, without lines that are damaged; [] if there is no file."""
    found: list[dict[str, Any]] = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def evenly_spaced(items: Sequence[Path], count: int) -> list[Path]:
    """`count` evenly spaced items, newest first, both ends included."""
    if len(items) <= count:
        return list(reversed(items))
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in reversed(range(count))]
