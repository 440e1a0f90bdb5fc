"""Tar, parquet, npz and IDX files for the tests, of six images in three classes."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from pyarrow import parquet

from tests.train.images import encoded, pixels

FILES = [encoded(pixels(seed)) for seed in range(6)]
LABELS = [2, 0, 1, 1, 0, 2]


def shard(path: Path, members: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def pairs(numbers: Sequence[int], label: Callable[[int], str] = str, extension: str = "cls") -> list[tuple[str, bytes]]:
    return [
        pair
        for number in numbers
        for pair in (
            (f"{number:03}.{extension}", label(LABELS[number]).encode()),
            (f"{number:03}.jpg", FILES[number]),
        )
    ]


def table(
    path: Path, labels: Sequence[Any] | None = LABELS, names: Sequence[str] | None = None, rows: int = 2, **columns: Any
) -> Path:
    cells = columns if {"image", "img", "one"} & set(columns) else {"image": images(), **columns}
    if labels is not None:
        cells = {**cells, "label": list(labels)}
    made = pyarrow.table(cells)
    if names is not None:
        described = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
        made = made.replace_schema_metadata({"huggingface": json.dumps(described)})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(made, path, row_group_size=rows)
    return path


def images() -> list[dict[str, Any]]:
    """The column of images as the hub stores it."""
    return [{"bytes": data, "path": None} for data in FILES]


def idx(path: Path, array: np.ndarray) -> Path:
    """An IDX file, compressed if its name says so."""
    code = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}[array.dtype.name]
    data = bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    data += array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def arrays(path: Path, **named: np.ndarray) -> Path:
    np.savez(path, **named)
    return path
