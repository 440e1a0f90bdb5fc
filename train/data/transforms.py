"""Random and centre crops of images on the host, and the random numbers of a sample."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from backends.rng import Stream, uniform, words
from train.data.decode import MinSize

TRIES = 10
RATIOS = (3 / 4, 4 / 3)


class Draws:
    """The random numbers of one sample, drawn in call order."""

    def __init__(self, seed: int, stream: Stream, position: int, count: int = 64) -> None:
        self._numbers = iter(uniform(words(seed, stream, position, count)).tolist())

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._numbers)

    def below(self, count: int) -> int:
        """An integer from 0 to count - 1."""
        return math.floor(count * next(self._numbers))

    def normal(self) -> float:
        """A standard normal number (Box-Muller)."""
        radius, angle = next(self._numbers), next(self._numbers)
        return math.sqrt(-2.0 * math.log1p(-radius)) * math.cos(2.0 * math.pi * angle)


@dataclass(frozen=True)
class CropAndFlip:
    """Bicubic RandomResizedCrop and horizontal flip: the published pre-training augmentation.

    size: (height, width). scale: range of the crop's area, as a fraction of the image. scaled:
    decode large JPEGs at 1/2, 1/4, ... of their size while the crop has at least `size` pixels.
    rot90: probability of a rotation of the crop by 90, 180 or 270 degrees, equally likely.
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    hflip: float
    scaled: bool = False
    rot90: float = 0.0

    def __call__(self, image: np.ndarray, draws: Draws) -> np.ndarray:
        top, left, height, width = crop_box(image.shape[0], image.shape[1], self.scale, draws)
        crop = image[top : top + height, left : left + width]
        mirrored = draws.uniform(0, 1) < self.hflip
        turns = 1 + draws.below(3) if self.rot90 and draws.uniform(0, 1) < self.rot90 else 0
        return resize(np.rot90(crop, turns), self.size, mirrored)

    def min_size(self, draws: Draws) -> MinSize | None:
        """The box is a fraction of the image, so the same draws give the same box at a smaller size."""

        def smallest(height: int, width: int) -> tuple[int, int]:
            _, _, h, w = crop_box(height, width, self.scale, draws)
            least = (max(self.size),) * 2 if self.rot90 else self.size
            factor = max(1.0, min(h / least[0], w / least[1]))
            return math.ceil(height / factor), math.ceil(width / factor)

        return smallest if self.scaled else None


def crop_box(height: int, width: int, scale: tuple[float, float], draws: Draws) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop; the largest centre crop if TRIES draws do not fit."""
    for _ in range(TRIES):
        area = height * width * draws.uniform(*scale)
        ratio = math.exp(draws.uniform(math.log(RATIOS[0]), math.log(RATIOS[1])))
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            return draws.below(height - h + 1), draws.below(width - w + 1), h, w
    h = min(height, round(width / RATIOS[0]))
    w = min(width, round(height * RATIOS[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def centre_crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The largest centre crop with the aspect ratio of `size`, resized to it (bicubic)."""
    height, width = image.shape[:2]
    factor = min(height / size[0], width / size[1])
    h, w = max(1, round(factor * size[0])), max(1, round(factor * size[1]))
    top, left = (height - h) // 2, (width - w) // 2
    return resize(image[top : top + h, left : left + w], size)


def resize(image: np.ndarray, size: tuple[int, int], mirrored: bool = False) -> np.ndarray:
    """Resize (H, W, C) uint8 or float32 to (*size, C) with Pillow's antialiased bicubic filter.

    mirrored: flip left-right. uint8 is rounded and clipped to 0..255; float32 is neither.
    """
    if image.shape[:2] == size:
        return image[:, ::-1] if mirrored else image
    if image.shape[-1] == 3 and image.dtype == np.uint8:
        return _resized(image, size, mirrored)
    return np.stack([_resized(image[..., channel], size, mirrored) for channel in range(image.shape[-1])], -1)


def _resized(plane: np.ndarray, size: tuple[int, int], mirrored: bool) -> np.ndarray:
    """Resize one plane or RGB image. Pillow flips ten times as fast as numpy."""
    picture = Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture)
