"""Open a data set: anything with a length and random access."""

import glob
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from train.config.groups import DIGITS_PATH
from train.data import advice, layout
from train.data.digits import Digits
from train.data.folder import Folder, NoImages
from train.data.idx import Idx
from train.data.kinds import IDX, SHARDS, STL10, kind
from train.data.layout import Layout, Part
from train.data.names import printable
from train.data.npz import Npz
from train.data.parquet import Parquet
from train.data.reading import DEFAULTS, Reading, ReadOptions
from train.data.stl10 import Stl10
from train.data.tars import Tars
from train.errors import NoSplit, TrainError

Split = Literal["train", "val", "all"]

Item = tuple[bytes | np.ndarray, int, str]
"""An encoded file or the array of an image (see `arrays.to_hwc`); its label; a key that names it to the user."""


class Source(Protocol):
    """A finite set of labelled images in a fixed order; instances can be pickled."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels."""

    @property
    def labels(self) -> Sequence[int]:
        """The label of each item."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the items or their order do."""

    @property
    def reading(self) -> Reading:
        """How the data was read, and what was left out."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...

    def name(self, index: int) -> str:
        """The key of an item, without reading the item."""


class Masked(Source, Protocol):
    """A source with masks, if its reading says so."""

    def mask(self, index: int) -> object:
        """Where an image has no data, as stored: what `no_data.joined` takes."""


READERS: dict[str, Callable[[Sequence[Path], ReadOptions, tuple[str, ...]], Source]] = {
    ".tar": Tars,
    ".parquet": Parquet,
}

ONE_FILE: dict[str, Callable[[Path, ReadOptions, tuple[str, ...]], Source]] = {
    ".npz": lambda file, options, left_out: Npz(file, "all", options, left_out),
    IDX: Idx,
    STL10: Stl10,
}
"""Readers of kinds of which a part is one file."""


def open_source(
    data_path: str, split: Split = "train", flag: str = "--data_path", options: ReadOptions = DEFAULTS
) -> Source:
    """The images of a split. Raises TrainError, naming the flag that gave the path, if there are none to read.

    data_path: a folder of images or shards, a shard, a pattern such as 'data/test-*.parquet', or
    "digits". A split is a sub-folder, the shards whose names contain it, or arrays in an npz file.
    Data that is not divided is all "train". "all" is data that is not divided.
    """
    if data_path == DIGITS_PATH:
        return Digits(split)
    try:
        return _opened(data_path, split, options)
    except TrainError as error:
        raise type(error)(printable(f"{flag} {error}")) from None


def open_eval(data_path: str, flag: str, options: ReadOptions = DEFAULTS) -> Source:
    """The images to evaluate on: the validation part of a path, or all of it if it is not divided."""
    try:
        return open_source(data_path, "val", flag, options)
    except NoSplit:
        return open_source(data_path, "all", flag, options)


def _opened(data_path: str, split: Split, options: ReadOptions) -> Source:
    if re.match(r"\w+://", data_path):
        raise TrainError(
            f"{data_path}: not a path of this machine; copy the data here, or mount it, and give its folder"
        )
    path = Path(data_path).expanduser()
    if path.is_dir():
        return _of_layout(path, layout.find(path), split, options)
    files = [path] if path.exists() else sorted(map(Path, glob.glob(str(path))))
    if not files:
        raise TrainError(f"{path}: {_absent(path)}")
    _refuse_other_files(files)
    if len(files) == 1 and files[0].suffix == ".npz":
        return Npz(files[0], split, options)
    return _of_layout(path, layout.of_files(files), split, options)


def _absent(path: Path) -> str:
    if re.search(r"\{.*\}", path.name):
        return "no such file; braces are not expanded, give a pattern with * or ?"
    return "no file matches this pattern" if glob.has_magic(str(path)) else "no such folder or file"


def _of_layout(path: Path, found: Layout, split: Split, options: ReadOptions) -> Source:
    part = _chosen(path, found, split)
    unused = tuple(f"the {name} part" for name in found.parts if name not in ("train", "val", "all"))
    left_out = (*found.left_out, *unused)
    if part.folder is None:
        return _of_shards(part.shards, options, left_out)
    try:
        return Folder(part.folder, options, left_out)
    except NoImages as error:
        remedy = next(advice.elsewhere(part.folder), None)
        raise TrainError(f"{part.folder}: no image below it; {remedy}" if remedy else str(error)) from None


def _chosen(path: Path, found: Layout, split: Split) -> Part:
    """The part of a layout. Raises NoSplit for the validation part of data that is not divided."""
    if not found.divided and split == "val":
        raise NoSplit(
            f"{path}: no val/ in it, nor files named so; give --eval_data_path, or divide it into train/ and val/;"
            " fine-tuning can do without, with --disable_eval True"
        )
    part = found.parts.get(split if found.divided else "all")
    if part is None:
        others = " or ".join(f"{name} ({each.pattern})" for name, each in found.parts.items())
        if split == "train":
            raise TrainError(f"{path}: no part of it is for training, only {others}; give one of these paths to use it")
        raise TrainError(
            f"{path}: no part of it is for validation, only {others}; name one with --eval_data_path,"
            " or as --data_path where nothing is trained"
        )
    return part


def _refuse_other_files(files: Sequence[Path]) -> None:
    """TrainError for files that are no shards of one kind."""
    for file in files:
        remedy = advice.compressed(file) or advice.labels(file)
        if remedy:
            raise TrainError(remedy)
        if not kind(file):
            raise TrainError(f"{file}: neither a folder nor one of {', '.join(SHARDS)}")
        if kind(file) != kind(files[0]):
            raise TrainError(f"{file}: is beside {kind(files[0])} files; give one kind")


def _of_shards(files: Sequence[Path], options: ReadOptions, left_out: tuple[str, ...]) -> Source:
    found = kind(files[0])
    if found in READERS:
        return READERS[found](files, options, left_out)
    if len(files) > 1:
        what = found.strip(".")
        raise TrainError(f"{files[0]}: one of {len(files)} {what} files; give one, such as --data_path {files[0]}")
    return ONE_FILE[found](files[0], options, left_out)
