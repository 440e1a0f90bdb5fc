"""A run as its directory tells it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from train.config import cli
from train.config.config import FLAGS, Config, titled
from train.config.recipes import TASKS, Layer
from train.config.resolve import resolve, shown
from train.errors import TrainError


class Value(NamedTuple):
    """A flag: its value in the run, its default, and where the value comes from."""

    flag: str
    value: str
    default: str
    origin: str


@dataclass(frozen=True)
class Record:
    """What a run was asked for, on what it ran, and what it wrote down on the way."""

    folder: Path
    config: Config
    about: list[str]
    lines: list[dict[str, float]]
    pictures: list[Path]

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """The epochs at which a figure was written down, and its values."""
        points = [(line["epoch"], line[name]) for line in self.lines if name in line]
        return [epoch for epoch, _ in points], [value for _, value in points]

    def last(self, name: str) -> float | None:
        return next((line[name] for line in reversed(self.lines) if name in line), None)

    def values(self) -> list[Value]:
        """Every flag in the order of --help; the origin is a recipe's, or "given" where the run was told so itself."""
        values = self.config.flags()
        named = {name: values[name] for name in ("task", "recipe", "data_path", "images")}
        expected, origins = resolve([Layer("given", named)])
        task = TASKS[values["task"]].values
        standard = expected.flags()
        found = []
        for name, value in values.items():
            origin = origins[name] if value == standard[name] else "given"
            found.append(Value(name, shown(value), shown(task.get(name, FLAGS[name].default)), origin))
        return found


def load(folder: Path) -> Record:
    """The record of a run; TrainError when the folder is not of one."""
    file = folder / "config.toml"
    if not file.is_file():
        raise TrainError(f"{folder}: not a run directory, it has no config.toml")
    config = cli.parse(["--config", str(file)])
    titles = {f"# {title}" for title, _ in titled()}
    lines = file.read_text(encoding="utf-8").splitlines()
    about = takewhile(lambda line: line.startswith("# ") and line not in titles, lines)
    return Record(
        folder,
        config,
        [line.removeprefix("# ") for line in about],
        _lines(folder / "metrics.jsonl"),
        sorted(folder.glob("pictures/step-*.png")),
    )


def _lines(file: Path) -> list[dict[str, float]]:
    """The metrics, but for a line that was cut off; none where there is no file."""
    found: list[dict[str, Any]] = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def spread(items: Sequence[Path], count: int) -> list[Path]:
    """So many of the items, the last and the first among them, the last first."""
    if len(items) <= count:
        return list(reversed(items))
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in reversed(range(count))]
