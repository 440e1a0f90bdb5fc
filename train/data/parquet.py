"""Parquet files as the Hugging Face hub stores image data sets: a column of images and one of labels.

An image is a struct {bytes, path}, the bytes of a file, or nested lists of numbers (`Array3D`, `Array2D`).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from train.data import labels
from train.data.decode import BrokenImage
from train.data.reading import DEFAULTS, IN_PARQUET, Reading, ReadOptions, probed
from train.data.tars import UNLABELLED
from train.errors import TrainError

IMAGES = ("image", "img")
LABELS = ("label", "labels", "fine_label")
BUDGET = 2**30  # bytes of row groups kept in memory
GROUP = 2**26  # bytes of a row group above which reading it for one image is not worth it


class Parquet:
    """The images of some files, sorted by file name, in the order of their rows.

    Parquet reads whole row groups. The last ones are kept, so a small data set is soon in
    memory. A large one needs small groups (the hub writes 100 rows) and is refused otherwise.
    """

    def __init__(self, files: Sequence[Path], options: ReadOptions = DEFAULTS, left_out: tuple[str, ...] = ()) -> None:
        self.files = sorted(files)
        tables = [_opened(file) for file in self.files]
        columns = _Columns(tables[0].schema_arrow, self.files[0])
        _refuse_other_columns(self.files, tables)
        self.column = columns.image(options.image_column)
        self.label = columns.label(options.label_column)
        self.nested = _is_nested(columns.types[self.column])
        self.masks = columns.masks(options.mask_column)
        self.groups = [(place, group) for place, table in enumerate(tables) for group in range(table.num_row_groups)]
        metadata = [tables[place].metadata.row_group(group) for place, group in self.groups]
        self.ends = np.cumsum([group.num_rows for group in metadata])
        if not self.groups or not self.ends[-1]:
            raise TrainError(f"{self.files[0]}: no image in it or the files beside it")
        self.sizes = [group.total_byte_size for group in metadata]
        self.reading = Reading(options, left_out, columns.unlabelled(self.label), uses=IN_PARQUET)
        self.classes, self.labels = self._labelled(tables, columns)
        self._refuse_slow(max(self.sizes), sum(self.sizes))
        self._group = lru_cache(max(2, BUDGET // max(self.sizes)))(self._read)
        self.reading = probed(self.reading, self)

    @property
    def fingerprint(self) -> str:
        listed = f"{self.labels} {self.ends.tolist()} {self.sizes}" + (f" {self.masks}" if self.masks else "")
        return hashlib.sha256(listed.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[bytes | np.ndarray, int, str]:
        group, row = self._place(index)
        scalar = self._group(group)[self.column][row]
        if self.nested:
            return _array(scalar, self.name(index)), self.labels[index], self.name(index)
        cell = scalar.as_py()
        data = cell["bytes"] if isinstance(cell, dict) else cell
        if not data:
            raise BrokenImage(f"{self.name(index)}: holds no bytes, at most the path of an image elsewhere")
        return data, self.labels[index], self.name(index)

    def mask(self, index: int) -> object:
        """Where an image has no data, as stored."""
        group, row = self._place(index)
        cell = self._group(group)[self.masks][row].as_py()
        return cell["bytes"] if isinstance(cell, dict) else cell

    def name(self, index: int) -> str:
        """File, row group and row of an image."""
        group, row = self._place(index)
        place, number = self.groups[group]
        return f"{self.files[place]}: row {row} of row group {number}"

    def _place(self, index: int) -> tuple[int, int]:
        """The row group of an image, counted over all files, and its row in it."""
        group = int(np.searchsorted(self.ends, index, side="right"))
        return group, index - (int(self.ends[group - 1]) if group else 0)

    def _row(self, index: int) -> str:
        """File of an image and row in the file."""
        place, _ = self.groups[self._place(index)[0]]
        before = sum(other < place for other, _ in self.groups)
        return f"{self.files[place]}: row {index - (int(self.ends[before - 1]) if before else 0)}"

    def __reduce__(self) -> tuple[type, tuple[list[Path], ReadOptions, tuple[str, ...]]]:
        """Pickled as its files: what is in memory stays in its process."""
        return Parquet, (self.files, self.reading.options, self.reading.left_out)

    def _read(self, group: int) -> Any:
        """The columns of a row group that hold images and masks."""
        place, number = self.groups[group]
        return _opened(self.files[place]).read_row_group(number, [name for name in (self.column, self.masks) if name])

    def _labelled(self, tables: Sequence[Any], columns: "_Columns") -> tuple[tuple[str, ...], list[int]]:
        """The classes and the label of each image; one class if there are no labels."""
        name = self.label
        if name is None:
            return (UNLABELLED,), [0] * int(self.ends[-1])
        values = [value for table in tables for value in _values(table, name)]
        if all(value == labels.HIDDEN for value in values):
            self.reading = self.reading._replace(unlabelled=labels.not_published(name))
            return (UNLABELLED,), [0] * len(values)
        known = columns.class_names(name)
        _refuse_other_classes(self.files, tables, name)
        wrong = next((row for row, value in enumerate(values) if not _fits(value, known)), None)
        if wrong is not None:
            what = f"not one of its {len(known)} classes" if known else "neither a class number nor a name"
            raise TrainError(f"{self._row(wrong)} has the {name} {values[wrong]!r}, which is {what}")
        if known:
            return known, values
        return labels.number([str(int(value)) if isinstance(value, int) else value for value in values])

    def _refuse_slow(self, largest: int, total: int) -> None:
        """TrainError where every image would cost a large row group."""
        if total > BUDGET and largest > GROUP:
            raise TrainError(
                f"{self.files[0]}: reading one image takes a row group, here up to {largest >> 20:,} MB; write the"
                " files again with pyarrow.parquet.write_table(..., row_group_size=100), or as tar shards"
            )


class _Columns:
    """The columns of a file, and which of them holds images and labels."""

    def __init__(self, schema: Any, file: Path) -> None:
        self.file, self.names, self.types = file, schema.names, dict(zip(schema.names, schema.types, strict=True))
        self.features = _features(schema.metadata or {})

    def image(self, asked: str | None) -> str:
        """The column of images: the one asked for, one of the usual name, or the only one that can hold images."""
        if asked is not None:
            return self._checked(asked, "--image_column")
        usual = next((name for name in IMAGES if name in self.names), None)
        of_bytes = [name for name in self.names if _holds_images(self.types[name])]
        if usual or len(of_bytes) == 1:
            return usual or of_bytes[0]
        remedy = f"; give --image_column {' or --image_column '.join(of_bytes)}" if of_bytes else ""
        raise TrainError(f"{self.file}: no column {' or '.join(IMAGES)}; it has {', '.join(self.names)}{remedy}")

    def label(self, asked: str | None) -> str | None:
        """The column of labels: the one asked for, one of the usual name, or the only one that names its classes."""
        if asked is not None:
            return self._checked(asked, "--label_column")
        named = [name for name in self.names if self.class_names(name)]
        return next((name for name in LABELS if name in self.names), named[0] if len(named) == 1 else None)

    def masks(self, asked: str | None) -> str | None:
        """The column of masks, if one is asked for."""
        return None if asked is None else self._checked(asked, "--mask_column")

    def class_names(self, column: str) -> tuple[str, ...]:
        """The names of the classes, which the hub keeps in the file's metadata; empty if it does not."""
        names = self.features.get(column, {}).get("names")
        return tuple(map(str, names)) if isinstance(names, list) else ()

    def unlabelled(self, label: str | None) -> str:
        """What to do if all images are in one class."""
        others = [name for name in self.names if not _holds_images(self.types[name]) and name != label]
        if not others:
            return "write a column of labels beside the images" if label is None else f"column {label} has one value"
        return f"its labels are in another column; give --label_column {' or --label_column '.join(others)}"

    def _checked(self, name: str, flag: str) -> str:
        if name not in self.names:
            raise TrainError(f"{self.file}: no column {name}, which {flag} names; it has {', '.join(self.names)}")
        return name


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


def _refuse_other_columns(files: Sequence[Path], tables: Sequence[Any]) -> None:
    """TrainError if the files do not have the same columns."""
    expected = tables[0].schema_arrow.names
    for file, table in zip(files, tables, strict=True):
        found = table.schema_arrow.names
        if found != expected:
            raise TrainError(f"{file}: has the columns {', '.join(found)}, {files[0]} has {', '.join(expected)}")


def _refuse_other_classes(files: Sequence[Path], tables: Sequence[Any], label: str) -> None:
    """TrainError if the files do not name the same classes in the same order."""
    found = [_Columns(table.schema_arrow, file).class_names(label) for file, table in zip(files, tables, strict=True)]
    other = next((place for place, names in enumerate(found) if names != found[0]), None)
    if other is not None:
        first, names = (", ".join(names) or "none" for names in (found[0], found[other]))
        raise TrainError(
            f"{files[other]}: its metadata names the classes of {label} {names}; that of {files[0]} names {first};"
            " write the files again with the same class names"
        )


def _values(table: Any, label: str) -> list[Any]:
    """The label of each row of a file."""
    return table.read([label])[label].to_pylist()


def _holds_images(column: Any) -> bool:
    """Whether a column's type is binary, a struct with a field `bytes`, or nested lists."""
    return "binary" in str(column) or str(column).startswith("struct<bytes") or _is_nested(column)


def _is_nested(column: Any) -> bool:
    """Whether a column's type is lists of lists, of any kind."""
    return str(column).count("list<") > 1


def _array(cell: Any, name: str) -> np.ndarray:
    """The array in nested lists; BrokenImage if they are of different lengths or hold nulls."""
    values = cell.values
    shape = [0 if values is None else len(values)]
    while values is not None and "list<" in str(values.type):
        lengths = values.value_lengths().unique().to_pylist()
        if len(lengths) != 1 or None in lengths:
            raise BrokenImage(f"{name}: its rows have different lengths ({lengths[:3]})")
        shape.append(lengths[0])
        values = values.flatten()
    if values is None or values.null_count:
        raise BrokenImage(f"{name}: is null, or holds nulls")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)


def _fits(label: Any, known: Sequence[str]) -> bool:
    """Whether a value is a class: a number, or a name where the file does not number its classes."""
    if isinstance(label, str):
        return not known and labels.is_label(label)
    return isinstance(label, int) and label >= 0 and (not known or label < len(known))


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """The hub's description of the columns; empty where there is none."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
