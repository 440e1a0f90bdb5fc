"""Files of features: the rows of a table with the name and the label of each image."""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from convert.containers.npz import write_array
from train.data.classes import is_labelled
from train.data.names import portable
from train.data.sources import Source
from train.tasks.growing import Table

CHUNK = 2**24  # bytes, about, that are in memory at once

Write = Callable[[Path, Table, Source], None]


def writer_of(suffix: str) -> Write:
    """The function that writes files of this suffix, once the packages that it needs are found."""
    if suffix == ".parquet":
        import pyarrow  # noqa: F401  # an error now, not after the work
    return WRITERS[suffix]


def _write_npz(path: Path, table: Table, source: Source) -> None:
    """The table's columns; image (N,); where known label (N,), and classes, their names."""
    index = table.read("index")
    with zipfile.ZipFile(path, "w") as archive:
        for name in table.columns:
            values = table.read(name)
            write_array(archive, name, values.dtype, values.shape, (values[rows] for rows in _chunks(table)))
        longest = max(len(name) for names in _names(table, source) for name in names)
        kind = np.dtype(f"<U{longest}")
        names = (np.array(names, kind) for names in _names(table, source))
        write_array(archive, "image", kind, index.shape, names)
        if is_labelled(source):
            labels = np.asarray(source.labels, np.int64)[index]
            classes = np.array([portable(name) for name in source.classes])
            for name, values in (("label", labels), ("classes", classes)):
                write_array(archive, name, values.dtype, values.shape, [values])


def _write_parquet(path: Path, table: Table, source: Source) -> None:
    """The same columns, and in place of classes one of their names, class."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for rows, names in zip(_chunks(table), _names(table, source), strict=True):
        index = table.read("index")[rows]
        columns = {"image": pa.array(names), "index": pa.array(index)}
        if is_labelled(source):
            labels = np.asarray(source.labels, np.int64)[index]
            columns |= {"label": pa.array(labels), "class": pa.array([portable(source.classes[n]) for n in labels])}
        for name in [name for name in table.columns if name != "index"]:
            tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(table.read(name)[rows]))
            columns[name] = tensors if len(table.columns[name].shape) > 1 else tensors.storage
        part = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, part.schema)
        writer.write_table(part)
    assert writer is not None, "a table without rows is refused"
    writer.close()


WRITERS: dict[str, Write] = {".npz": _write_npz, ".parquet": _write_parquet}


def _chunks(table: Table) -> Iterator[slice]:
    """Slices of rows of about CHUNK bytes."""
    step = max(1, CHUNK // sum(column.nbytes for column in table.columns.values()))
    return (slice(start, start + step) for start in range(0, table.rows, step))


def _names(table: Table, source: Source) -> Iterator[list[str]]:
    """The names of the images of each chunk."""
    index = table.read("index")
    return ([portable(source.name(number)) for number in index[rows].tolist()] for rows in _chunks(table))
