"""npz files of images and their labels."""

import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np

from train.data.labels import NUMBERS
from train.data.reading import DEFAULTS, IN_ARRAYS, Reading, ReadOptions, probed
from train.data.tars import UNLABELLED
from train.errors import NoSplit, TrainError

USED = ("", "train_", "val_")
"""Prefixes of the arrays that a training run uses."""


class Npz:
    """Images of an npz file: `images` (N, H, W), (N, H, W, C) or (N, C, H, W) of any type in `Values`, `labels` (N,).

    A file of several splits holds `train_images`, `train_labels`, `val_images` and so on.
    Labels are class numbers. Without labels, all images are in one class. With mask_key M, there is an array M
    (N, h, w), or train_M and so on.
    """

    def __init__(self, file: Path, split: str, options: ReadOptions = DEFAULTS, left_out: tuple[str, ...] = ()) -> None:
        self.file = file
        names = _names(file)
        prefix = self._prefix(names, split)
        suffixes = ("images", "labels", options.mask_key or "labels")
        unused = [name for name in names if name not in {prefix + suffix for prefix in USED for suffix in suffixes}]
        left_out = (*left_out, *(f"the array {name}" for name in unused))
        unlabelled = f"write an array {prefix}labels (N,) of class numbers beside the images"
        images = _read(file, f"{prefix}images")
        labelled = f"{prefix}labels" in names
        labels = _read(file, f"{prefix}labels") if labelled else np.zeros(len(images), np.int64)
        if images.ndim not in (3, 4) or not images.size:
            shape = f"{images.dtype}{images.shape}"
            raise TrainError(f"{file}: {prefix}images is {shape}, not (N, H, W), (N, H, W, C) or (N, C, H, W)")
        if labels.size != len(images) or labels.dtype.kind not in "iu" or labels.min() < 0:
            shape = f"{labels.dtype}{labels.shape}"
            raise TrainError(
                f"{file}: {prefix}labels is {shape}, not a class number for each of {len(images):,} images"
            )
        if labels.max() >= NUMBERS:
            raise TrainError(
                f"{file}: {prefix}labels has the label {labels.max()}; class numbers are below {NUMBERS:,}"
            )
        self.images = images
        self.labels: list[int] = labels.reshape(-1).tolist()
        self.reading = probed(Reading(options, left_out, unlabelled, uses=("mask_key", *IN_ARRAYS)), self)
        self.masks = self._masks(names, f"{prefix}{options.mask_key}") if self.reading.masked else None
        self.classes = tuple(map(str, range(max(self.labels) + 1))) if labelled else (UNLABELLED,)

    @property
    def fingerprint(self) -> str:
        masks = b"" if self.masks is None else self.masks.tobytes()
        return hashlib.sha256(self.images.tobytes() + repr(self.labels).encode() + masks).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, str]:
        return self.images[index], self.labels[index], self.name(index)

    def name(self, index: int) -> str:
        """File and number of an image."""
        return f"{self.file}: image {index}"

    def mask(self, index: int) -> object:
        """(h, w), nonzero where an image has no data."""
        return None if self.masks is None else self.masks[index]

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


def _read(file: Path, name: str) -> np.ndarray:
    """An array of the file. Pickled objects are refused."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        raise TrainError(f"{file}: {name} cannot be read ({error})") from None
