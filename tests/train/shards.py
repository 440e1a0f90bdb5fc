"""Tar, parquet and npz files for the tests, of six images in three classes."""

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


def arrays(path: Path, **named: np.ndarray) -> Path:
    np.savez(path, **named)
    return path
