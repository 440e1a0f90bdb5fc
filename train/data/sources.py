"""Where images come from: anything with a length and random access."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from train.config.groups import DIGITS_PATH
from train.data.arrays import Npz
from train.data.folder import Folder
from train.data.parquet import Parquet
from train.data.tars import Tars
from train.errors import NoSplit, TrainError

Split = Literal["train", "val", "all"]

HELD_OUT_NAMES = {"val", "valid", "validation", "test"}
"""Words in the name of a shard that keep it out of training."""

Item = tuple[bytes | np.ndarray, int, str]
"""An encoded file or an image (H, W, C) uint8; its label; a key that names it to the user."""


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

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...

    def name(self, index: int) -> str:
        """The key of an item, which is not read for it."""


READERS: dict[str, Callable[[list[Path]], Source]] = {".tar": Tars, ".parquet": Parquet}
SHARDS = (*READERS, ".npz")


class Digits:
    """scikit-learn's 1,797 handwritten digits (8 x 8, 17 grey levels), enlarged to 32 x 32.

    Every fifth of each class is kept for validation: 355, which no training sees, labelled or not.
    """

    SIDE = 32
    HELD_OUT = 5
    classes = tuple("0123456789")

    def __init__(self, split: Split = "all") -> None:
        from sklearn.datasets import load_digits  # a second to import: only when asked for

        digits = load_digits()
        seen = np.cumsum(digits.target[:, None] == np.arange(10), 0)  # of each class, up to each image
        held_out = seen[np.arange(len(seen)), digits.target] % self.HELD_OUT == 0
        chosen = {"train": ~held_out, "val": held_out, "all": held_out | True}[split]
        small = np.rint(digits.images[chosen] * (255 / 16)).astype(np.uint8)
        self.images = np.stack([_enlarge(image, self.SIDE) for image in small])[..., None]
        self.labels: list[int] = digits.target[chosen].tolist()
        self.fingerprint = f"scikit-learn digits, {split}"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        return self.images[index], self.labels[index], self.name(index)

    def name(self, index: int) -> str:
        """The number of a digit."""
        return f"digit {index}"


def _enlarge(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def open_source(data_path: str, split: Split = "train", flag: str = "--data_path") -> Source:
    """The images of a split; TrainError, naming the flag that gave the path, when there are none to read.

    A split is a folder of its name, or the shards whose names contain it, or arrays in an npz
    file. Data that is not divided is all "train"; "all" takes what is there as it stands.
    """
    if data_path == DIGITS_PATH:
        return Digits(split)
    try:
        return _found(Path(data_path), split)
    except TrainError as error:
        raise type(error)(f"{flag} {error}") from None


def open_judged(data_path: str, flag: str) -> Source:
    """The images to evaluate on: the validation part of a path, or all of it where it is not divided."""
    try:
        return open_source(data_path, "val", flag)
    except NoSplit:
        return open_source(data_path, "all", flag)


def _found(path: Path, split: Split) -> Source:
    if split != "all" and (path / split).is_dir():
        path, split = path / split, "all"
    files = [path] if path.is_file() else _shards(path)
    kind = files[0].suffix if files else ""
    if path.is_dir() and split != "all":
        files = [file for file in files if _split_of(file) == split]
    if kind == ".npz" and files:
        return Npz(files[0], "all" if path.is_dir() else split)
    if split == "val" and (not files or path.is_file()):
        raise NoSplit(f"{path}: no val/ in it, nor files named so; give --eval_data_path, or --disable_eval True")
    if kind and not files:
        raise TrainError(f"{path}: none of its {kind} files is for training; name them train-...")
    if kind and kind not in READERS:
        raise TrainError(f"{path}: neither a folder nor one of {', '.join(SHARDS)}")
    return READERS[kind](files) if kind else Folder(path)


def _shards(folder: Path) -> list[Path]:
    """The shards in a folder or, as the hub lays data sets out, in its data/."""
    places = ((place, suffix) for place in (folder, folder / "data") for suffix in SHARDS)
    return next((files for place, suffix in places if (files := sorted(place.glob(f"*{suffix}")))), [])


def _split_of(file: Path) -> Split:
    words = set(re.split(r"[^a-z]+", file.stem.lower()))
    return "val" if words & HELD_OUT_NAMES else "train"
