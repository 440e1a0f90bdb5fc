"""The embedded data set: scikit-learn's handwritten digits."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from train.data.decode import Decoding
from train.data.reading import Reading, ReadOptions

if TYPE_CHECKING:
    from train.data.sources import Item, Split


class Digits:
    """scikit-learn's 1,797 handwritten digits (8 x 8, 17 grey levels), enlarged to 32 x 32.

    Every fifth image of each class is kept for validation: 355, which no training uses.
    """

    SIDE = 32
    HELD_OUT = 5
    classes = tuple("0123456789")
    reading = Reading(ReadOptions(decoding=Decoding(channel_axis="last")), uses=())

    def __init__(self, split: "Split" = "all") -> None:
        from sklearn.datasets import load_digits  # takes a second to import

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

    def __getitem__(self, index: int) -> "Item":
        return self.images[index], self.labels[index], self.name(index)

    def name(self, index: int) -> str:
        """The number of a digit."""
        return f"digit {index}"


def _enlarge(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
