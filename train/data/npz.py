"""npz files of images and their labels."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from train.data.array_source import ArraySource, Named
from train.data.reading import DEFAULTS, IN_ARRAYS, Reading, ReadOptions
from train.errors import NoSplit, TrainError

USED = ("", "train_", "val_")
"""Prefixes of the arrays that a training run uses."""


class Npz(ArraySource):
    """Images of an npz file: `images` and `labels`, as `ArraySource` takes them.

    A file of several splits holds `train_images`, `train_labels`, `val_images` and so on.
    With mask_key M, there is an array M (N, h, w), or train_M and so on.
    """

    def __init__(self, file: Path, split: str, options: ReadOptions = DEFAULTS, left_out: tuple[str, ...] = ()) -> None:
        self.file = file
        names = _names(file)
        prefix = self._prefix(names, split)
        suffixes = ("images", "labels", options.mask_key or "labels")
        unused = [name for name in names if name not in {prefix + suffix for prefix in USED for suffix in suffixes}]
        left_out = (*left_out, *(f"the array {name}" for name in unused))
        unlabelled = f"write an array {prefix}labels (N,) of class numbers beside the images"
        reading = Reading(options, left_out, unlabelled, uses=("mask_key", *IN_ARRAYS))
        labels = _named(file, f"{prefix}labels") if f"{prefix}labels" in names else None
        super().__init__(file, _named(file, f"{prefix}images"), labels, reading)
        if self.reading.masked:
            self.masks = self._masks(names, f"{prefix}{options.mask_key}")

    def _masks(self, names: list[str], name: str) -> np.ndarray:
        if name not in names:
            raise TrainError(f"{self.file}: no array {name}, which --mask_key names; it has {', '.join(names)}")
        masks = _read(self.file, name)
        if masks.ndim != 3 or len(masks) != len(self.images):
            shape = f"{masks.dtype}{masks.shape}"
            raise TrainError(f"{self.file}: {name} is {shape}, not masks (h, w) of {len(self.images):,} images")
        return masks

    def _prefix(self, names: list[str], split: str) -> str:
        """The prefix of the array names: the split, if the file holds several, or nothing."""
        if f"{split}_images" in names:
            return f"{split}_"
        if split == "val":
            raise NoSplit(f"{self.file}: no array val_images in it")
        if "images" not in names:
            raise TrainError(f"{self.file}: no array images or {split}_images; it has {', '.join(names)}")
        return ""


def _names(file: Path) -> list[str]:
    """The names of the arrays in a file."""
    try:
        with zipfile.ZipFile(file) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise TrainError(f"{file}: not a readable npz file ({error})") from None


def _named(file: Path, name: str) -> Named:
    return f"{file}: {name}", _read(file, name)


def _read(file: Path, name: str) -> np.ndarray:
    """An array of the file. Pickled objects are refused."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        raise TrainError(f"{file}: {name} cannot be read ({error})") from None
