"""Tables of numbers that grow on disk, row by row, and survive a killed process."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Column(NamedTuple):
    """The shape and type of one row of a table's column."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes per row."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class Table:
    """Columns of equal length in a folder, a file of raw rows each; `index`, the last one, increases.

    Rows are on the disk before their index is, so those with an index are whole.
    """

    def __init__(self, folder: Path, columns: Mapping[str, Column]) -> None:
        self.folder, self.columns = folder, {**columns, "index": Column((), np.dtype(np.int64))}
        self.rows = min(self._file(name).stat().st_size // c.nbytes for name, c in self.columns.items())

    def append(self, values: Mapping[str, np.ndarray]) -> None:
        """Add rows to every column."""
        for name, column in self.columns.items():
            with self._file(name).open("ab") as file:
                file.write(values[name].astype(column.dtype, copy=False).tobytes())
                file.flush()
                os.fsync(file.fileno())
        self.rows += len(values["index"])

    def read(self, name: str) -> np.ndarray:
        """(rows, ...) a column, which stays on the disk."""
        column = self.columns[name]
        if not self.rows:
            return np.empty((0, *column.shape), column.dtype)
        return np.memmap(self._file(name), column.dtype, "r", shape=(self.rows, *column.shape))

    def truncate(self, rows: int) -> None:
        """Keep the first rows only."""
        for name, column in self.columns.items():
            os.truncate(self._file(name), rows * column.nbytes)
        self.rows = rows

    def _file(self, name: str) -> Path:
        file = self.folder / f"{name}.bin"
        file.touch()
        return file
