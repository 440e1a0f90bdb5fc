"""Normalisation and random erasing on the host.

Pre-training sends uint8 to the device, which normalises it. Random erasing writes normal noise
and mixup averages normalised pixels; uint8 cannot hold either. Recipes that use them send
float32: four times the bytes and half a millisecond per image. So do images of other types.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from backends.rng import Stream, normal, words
from train.data.transforms import TRIES, Draws

AREA = (0.02, 1 / 3)  # of a box, as a fraction of the image
ASPECT = (0.3, 1 / 0.3)
NOISE = 2**48  # the noise of box k of a sample is drawn at position + k * NOISE; no run has as many samples


def normalise(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """(N, H, W, C) to float32, (x - mean) / std; uint8 is divided by 255 first, bit-equal to the trainers' own."""
    *_, height, width, channels = images.shape
    shift, scale = _row(mean, width, channels), _row(std, width, channels)
    pixels = np.empty(images.shape, np.float32)
    rows = (-1, height, width * channels)  # numpy broadcasts slowly along an axis of length 3
    for image, target in zip(images.reshape(rows), pixels.reshape(rows), strict=True):  # stays in the CPU cache
        np.divide(image, np.float32(255 if images.dtype == np.uint8 else 1), out=target)
        target -= shift
        target /= scale
    return pixels


def batched(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """The images of a batch: uint8 unchanged, which the device normalises; others normalised here."""
    return images if images.dtype == np.uint8 else normalise(images, mean, std)


def _row(values: Sequence[float], width: int, channels: int) -> np.ndarray:
    return np.tile(np.broadcast_to(np.asarray(values, np.float32), channels), width)


@dataclass(frozen=True)
class Erase:
    """Random erasing: with probability `prob`, up to `count` boxes of a normalised image become noise.

    mode "pixel": standard normal noise per value; "rand": per channel; "const": zeros.
    """

    seed: int
    prob: float
    mode: Literal["pixel", "rand", "const"] = "pixel"
    count: int = 1

    def __call__(self, image: np.ndarray, position: int) -> None:
        """Erase boxes of (H, W, C) in place, drawn for the sample at `position` of the run."""
        for number, (top, left, height, width) in enumerate(self.boxes(image.shape[0], image.shape[1], position), 1):
            box = image[top : top + height, left : left + width]
            shape = {"pixel": box.shape, "rand": (1, 1, box.shape[-1]), "const": (0,)}[self.mode]
            size = math.prod(shape)
            noise = normal(words(self.seed, Stream.ERASE, position + number * NOISE, 2 * size))
            box[:] = noise.reshape(shape) if size else 0

    def boxes(self, height: int, width: int, position: int) -> list[tuple[int, int, int, int]]:
        """(top, left, height, width) of each box to erase."""
        draws = Draws(self.seed, Stream.ERASE, position, 2 + self.count * (2 * TRIES + 2))
        if draws.uniform(0, 1) >= self.prob:
            return []
        count = 1 + draws.below(self.count)
        found = (_box(height, width, count, draws) for _ in range(count))
        return [box for box in found if box]


def _box(height: int, width: int, count: int, draws: Draws) -> tuple[int, int, int, int] | None:
    """A random box inside the image; None if TRIES draws do not fit."""
    for _ in range(TRIES):
        area = draws.uniform(*AREA) * height * width / count
        aspect = math.exp(draws.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            return draws.below(height - h + 1), draws.below(width - w + 1), h, w
    return None
