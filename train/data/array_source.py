"""Images in one array, with the label of each."""

import hashlib
from pathlib import Path

import numpy as np

from train.data.labels import NUMBERS
from train.data.reading import Reading, probed
from train.data.tars import UNLABELLED
from train.errors import TrainError

Named = tuple[str, np.ndarray]
"""Where an array is, as messages say it, and the array."""


class ArraySource:
    """Images (N, H, W), (N, H, W, C) or (N, C, H, W) of any type in `Values`, and their class numbers, N in all.

    Without labels, all images are in one class. Raises TrainError for arrays that are not so.
    """

    masks: np.ndarray | None = None

    def __init__(self, file: Path, images: Named, labels: Named | None, reading: Reading) -> None:
        self.file = file
        where, self.images = images
        if self.images.ndim not in (3, 4) or not self.images.size:
            raise TrainError(f"{where} is {_shape(self.images)}, not (N, H, W), (N, H, W, C) or (N, C, H, W)")
        self.labels: list[int] = _numbers(*labels, len(self.images)) if labels else [0] * len(self.images)
        self.classes = tuple(map(str, range(max(self.labels) + 1))) if labels else (UNLABELLED,)
        self.reading = probed(reading, self)

    @property
    def fingerprint(self) -> str:
        masks = b"" if self.masks is None else self.masks.tobytes()
        return hashlib.sha256(self.images.tobytes() + repr(self.labels).encode() + masks).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, str]:
        return np.ascontiguousarray(self.images[index]), self.labels[index], self.name(index)

    def name(self, index: int) -> str:
        """File and number of an image."""
        return f"{self.file}: image {index}"

    def mask(self, index: int) -> object:
        """(h, w), nonzero where an image has no data."""
        return None if self.masks is None else self.masks[index]


def _numbers(where: str, labels: np.ndarray, count: int) -> list[int]:
    """The class number of each of `count` images."""
    if labels.size != count or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise TrainError(f"{where} is {_shape(labels)}, not a class number for each of {count:,} images")
    if labels.max() >= NUMBERS:
        raise TrainError(f"{where} has the label {labels.max()}; class numbers are below {NUMBERS:,}")
    numbers: list[int] = labels.reshape(-1).tolist()
    return numbers


def _shape(array: np.ndarray) -> str:
    return f"{array.dtype}{array.shape}"
