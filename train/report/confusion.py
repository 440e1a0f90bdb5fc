"""Confusion matrices of a classifier: images of each true class (rows) by predicted class (columns)."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convert import files
from train.data.names import portable

DRAWN = 20
"""Largest number of classes of which a matrix is drawn; of more, the most frequent confusions are listed."""

CORNER = "true, then predicted"


class Confusion(NamedTuple):
    """How many of the images of a class are taken for another. As text, "cat taken for lynx: 3 of 50 images"."""

    true: str
    predicted: str
    times: int
    images: int

    def __str__(self) -> str:
        return f"{self.true} taken for {self.predicted}: {self.times:,} of {self.images:,} images"


def most_frequent(classes: Sequence[str], matrix: np.ndarray, count: int) -> list[Confusion]:
    """The largest entries off the diagonal, at most `count`; equal ones in the order of the classes."""
    wrong = matrix - np.diag(matrix.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [divmod(place, len(classes)) for place in order.tolist()]
    images = matrix.sum(1)
    return [Confusion(classes[a], classes[b], int(wrong[a, b]), int(images[a])) for a, b in pairs if wrong[a, b]]


def write(file: Path, classes: Sequence[str], matrix: np.ndarray) -> None:
    """Write a CSV file with the names of the classes on both axes; OSError if that fails."""
    names = list(map(portable, classes))
    rows = ([name, *row] for name, row in zip(names, matrix.tolist(), strict=True))
    with files.atomic(file) as aside, aside.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([[CORNER, *names], *rows])


def read(file: Path) -> tuple[list[str], np.ndarray]:
    """The names of the classes and the matrix in such a file."""
    with file.open(encoding="utf-8", newline="") as stream:
        (_, *classes), *rows = csv.reader(stream)
    return classes, np.array([row[1:] for row in rows], np.int64)
