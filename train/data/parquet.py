"""Parquet files as the Hugging Face hub stores image data sets: a column of {bytes, path}, a column of labels."""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from train.data.decode import BrokenImage
from train.data.tars import UNLABELLED
from train.errors import TrainError

IMAGES = ("image", "img")
LABELS = ("label", "labels", "fine_label")
BUDGET = 2**30  # bytes of row groups kept in memory
GROUP = 2**26  # bytes of a row group above which reading it for one image is not worth it


class Parquet:
    """The images of some files, in the order of the files' names and of their rows.

    Parquet reads whole row groups. The latest are kept, so a small data set is soon in
    memory; a large one needs small groups (the hub writes a hundred rows), and is refused otherwise.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = sorted(files)
        tables = [_opened(file) for file in self.files]
        self.column = _column(tables[0], IMAGES, self.files[0])
        self.groups = [(place, group) for place, table in enumerate(tables) for group in range(table.num_row_groups)]
        metadata = [tables[place].metadata.row_group(group) for place, group in self.groups]
        self.ends = np.cumsum([group.num_rows for group in metadata])
        self.classes, self.labels = self._labelled(tables)
        self.sizes = [group.total_byte_size for group in metadata]
        self._refuse_slow(max(self.sizes), sum(self.sizes))
        self._group = lru_cache(max(2, BUDGET // max(self.sizes)))(self._read)

    @property
    def fingerprint(self) -> str:
        listed = f"{self.labels} {self.ends.tolist()} {self.sizes}"
        return hashlib.sha256(listed.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[bytes, int, str]:
        group, row = self._place(index)
        cell = self._group(group)[row].as_py()
        data = cell["bytes"] if isinstance(cell, dict) else cell
        if not data:
            raise BrokenImage(f"{self.name(index)}: holds no bytes, at most the path of an image elsewhere")
        return data, self.labels[index], self.name(index)

    def name(self, index: int) -> str:
        """File, row group and row of an image."""
        group, row = self._place(index)
        place, number = self.groups[group]
        return f"{self.files[place]}: row {row} of row group {number}"

    def _place(self, index: int) -> tuple[int, int]:
        """The row group of an image, counted over all files, and its row in it."""
        group = int(np.searchsorted(self.ends, index, side="right"))
        return group, index - (int(self.ends[group - 1]) if group else 0)

    def __reduce__(self) -> tuple[type, tuple[list[Path]]]:
        """Pickled as its files: what is in memory stays in its process."""
        return Parquet, (self.files,)

    def _read(self, group: int) -> Any:
        place, number = self.groups[group]
        return _opened(self.files[place]).read_row_group(number, [self.column])[self.column]

    def _labelled(self, tables: Sequence[Any]) -> tuple[tuple[str, ...], list[int]]:
        """The classes and every image's label; one class where there is no such column."""
        rows = int(self.ends[-1]) if self.groups else 0
        if not rows:
            raise TrainError(f"{self.files[0]}: no image in it or the files beside it")
        if not set(LABELS) & set(tables[0].schema_arrow.names):
            return (UNLABELLED,), [0] * rows
        label = _column(tables[0], LABELS, self.files[0])
        labels = [value for table in tables for value in table.read([label])[label].to_pylist()]
        known = _names(tables[0].schema_arrow, label)
        wrong = next((row for row, value in enumerate(labels) if not _fits(value, known)), None)
        if wrong is not None:
            raise TrainError(f"{self.files[0]}: row {wrong} has the label {labels[wrong]!r}, which is no class number")
        return known or tuple(map(str, range(max(labels) + 1))), labels

    def _refuse_slow(self, largest: int, total: int) -> None:
        """TrainError where every image would cost a large row group."""
        if total > BUDGET and largest > GROUP:
            raise TrainError(
                f"{self.files[0]}: reading one image takes a row group, here up to {largest >> 20:,} MB; write the"
                " files anew with pyarrow.parquet.write_table(..., row_group_size=100), or as tar shards"
            )


def _opened(file: Path) -> Any:
    """A ParquetFile; TrainError when it is none."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise TrainError(f"{file}: parquet needs pyarrow; pip install 'twinnext[parquet]'") from None
    try:
        return ParquetFile(file)
    except (OSError, ArrowException) as error:
        raise TrainError(f"{file}: not a readable parquet file ({str(error).splitlines()[0]})") from None


def _column(table: Any, names: Sequence[str], file: Path) -> str:
    """The first of some names that a file has a column of."""
    known = table.schema_arrow.names
    for name in names:
        if name in known:
            return name
    raise TrainError(f"{file}: no column {' or '.join(names)}; it has {', '.join(known)}")


def _fits(label: Any, known: Sequence[str]) -> bool:
    """Whether a value is the number of a class."""
    return isinstance(label, int) and label >= 0 and (not known or label < len(known))


def _names(schema: Any, label: str) -> tuple[str, ...]:
    """The classes' names, which the hub keeps in the file's metadata; empty where it does not."""
    try:
        told = json.loads(schema.metadata[b"huggingface"])
        return tuple(told["info"]["features"][label]["names"])
    except (KeyError, TypeError, ValueError):
        return ()
