"""Where images come from: anything with a length and random access."""

from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from train.config import DIGITS_PATH
from train.data.folder import Folder

Item = tuple[bytes | np.ndarray, int, str]
"""An encoded file or an image (H, W, C) uint8; its label; a key that names it to the user."""


class Source(Protocol):
    """A finite set of labelled images in a fixed order; instances can be pickled."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the items or their order do."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...


class Digits:
    """scikit-learn's 1,797 handwritten digits (8 x 8, 17 grey levels), enlarged to 32 x 32."""

    SIDE = 32
    classes = tuple("0123456789")
    fingerprint = "scikit-learn digits"

    def __init__(self) -> None:
        from sklearn.datasets import load_digits  # a second to import: only when asked for

        digits = load_digits()
        small = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        self.images = np.stack([_enlarge(image, self.SIDE) for image in small])[..., None]
        self.labels = digits.target

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        return self.images[index], int(self.labels[index]), f"digit {index}"


def _enlarge(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def open_source(data_path: str) -> Source:
    """The source that --data_path names; TrainError when there is nothing to read."""
    return Digits() if data_path == DIGITS_PATH else Folder(Path(data_path))
