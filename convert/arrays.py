"""Arrays described before they are read: shapes and dtypes first, values one array at a time.

Nothing in `convert` holds a whole file in memory: a container lists its entries, the rules rename and
permute them, and a writer reads each of them once.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from convert.errors import ConvertError

DTYPES: dict[str, np.dtype] = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
"""The dtypes that a parameter may be stored in."""


@dataclass(frozen=True)
class Entry:
    """Shape and dtype of an array; `read` returns its values, and may be called again."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def then(self, change: "Change", shape: tuple[int, ...] | None = None, dtype: np.dtype | None = None) -> "Entry":
        """The entry whose values are `change(values)`; give shape and dtype where the change alters them."""
        return Entry(self.shape if shape is None else shape, dtype or self.dtype, lambda: change(self.read()))


Change = Callable[[np.ndarray], np.ndarray]
Entries = dict[str, Entry]


class Arrays(Mapping[str, np.ndarray]):
    """Name -> array, read from the file at each access; `entries` has shapes and dtypes."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries

    def __getitem__(self, name: str) -> np.ndarray:
        return self.entries[name].read()

    def __contains__(self, name: object) -> bool:
        return name in self.entries  # Mapping's own would read the array

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def entries_of(arrays: Mapping[str, np.ndarray]) -> Entries:
    """Name -> entry of any mapping of arrays, lazy or not."""
    if isinstance(arrays, Arrays):
        return arrays.entries
    return {name: entry_checked(name, entry_of(np.asarray(array))) for name, array in arrays.items()}


def entry_of(array: np.ndarray) -> Entry:
    """An array in memory as an entry."""
    return Entry(array.shape, array.dtype, lambda: array)


def entry_checked(name: str, entry: Entry) -> Entry:
    """The same entry; reading it raises ConvertError if a value is NaN or infinite."""

    def finite(values: np.ndarray) -> np.ndarray:
        if not np.isfinite(values).all():
            bad = int(values.size - np.isfinite(values).sum())
            raise ConvertError(
                f"{name}: {bad} of its {values.size} values are NaN or infinite; take an earlier checkpoint"
            )
        return values

    return entry.then(finite)


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dicts of dotted names: {"a.b": 1} -> {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *branches, last = name.split(".")
        node = tree
        for branch in branches:
            node = node.setdefault(branch, {})
        node[last] = leaf
    return tree


def span(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> Entry:
    """The array stored in a file from byte `offset`; ConvertError at once if the file ends before it does."""
    count = math.prod(shape) * dtype.itemsize
    if offset < 0 or offset + count > path.stat().st_size:
        raise ConvertError(f"{path}: truncated: {count} bytes at {offset} lie past its end; copy or download it again")

    def read() -> np.ndarray:
        raw = np.fromfile(path, np.uint8, count, offset=offset)
        if raw.size != count:
            raise ConvertError(f"{path}: changed while being read; try again")
        return raw.view(dtype).reshape(shape)

    return Entry(shape, dtype, read)


def raw_bytes(entry: Entry) -> np.ndarray:
    """The values of an entry as little-endian bytes in C order; every writer uses this.

    Permuted arrays are views; safetensors 0.8.0 writes such views wrongly, without an error.
    """
    values = np.asarray(entry.read(), order="C")
    if values.shape != entry.shape or values.dtype != entry.dtype:
        raise AssertionError(f"an entry of {entry.dtype}{entry.shape} read as {values.dtype}{values.shape}")
    return values.astype(values.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8)
