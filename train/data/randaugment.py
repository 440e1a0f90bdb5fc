"""RandAugment with increasing magnitudes, as timm defines `rand-m9-mstd0.5-inc1`."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from train.data.transforms import Draws
from train.errors import TrainError

TOP = 10  # the magnitude at which each operation is strongest
LIMITS = {"m": (0, TOP), "n": (1, 8), "p": (0, 1), "mstd": (0, 100), "inc": (1, 1)}
EXAMPLE = "rand-m9-mstd0.5-inc1"

Fill = int | tuple[int, ...]
Operation = Callable[[Image.Image, float, int, Fill], Image.Image]


@dataclass(frozen=True)
class RandAugment:
    """`layers` operations drawn with replacement, each applied with probability `prob`.

    Magnitudes are normal with mean `magnitude` and standard deviation `spread`, clipped to
    0..10. Operations with a direction take either sign with equal probability. fill: grey
    level per channel for pixels that move into the image.
    """

    magnitude: float
    layers: int
    prob: float
    spread: float
    fill: tuple[int, ...]

    @classmethod
    def parse(cls, text: str, mean: Sequence[float]) -> Self:
        """Parse timm's policy string; fill with the mean colour. Raises TrainError."""
        head, *sections = text.split("-")
        found = [re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", section) for section in sections]
        values = {"m": 10.0, "n": 2.0, "p": 0.5, "mstd": 0.0} | {match[1]: float(match[2]) for match in found if match}
        known = head == "rand" and all(found) and values.keys() == LIMITS.keys() and values["n"] % 1 == 0
        if not known or not all(low <= values[name] <= high for name, (low, high) in LIMITS.items()):
            limits = ", ".join(f"{name} {low}..{high}" for name, (low, high) in LIMITS.items())
            raise TrainError(f"--aa {text}: not a policy such as {EXAMPLE}, made of rand and {limits}; or none")
        fill = tuple(min(255, round(255 * value)) for value in mean)
        return cls(values["m"], int(values["n"]), values["p"], values["mstd"], fill)

    def __call__(self, image: np.ndarray, draws: Draws) -> np.ndarray:
        """Augment (H, W, C) uint8 with 1 or 3 channels; returns the same shape."""
        grey = image.shape[-1] == 1
        picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if grey else image))
        fill: Fill = self.fill[0] if grey else self.fill * (image.shape[-1] // len(self.fill))
        for _ in range(self.layers):
            name, applied, magnitude, sign = self.draw(draws)
            if applied:
                picture = OPERATIONS[name](picture, magnitude / TOP, sign, fill)
        changed = np.asarray(picture)
        return changed[..., None] if grey else changed

    def draw(self, draws: Draws) -> tuple[str, bool, float, int]:
        """Name of an operation, whether to apply it, magnitude in 0..10, direction (1 or -1)."""
        name = NAMES[draws.below(len(NAMES))]
        applied = draws.uniform(0, 1) < self.prob
        magnitude = min(max(0.0, self.magnitude + self.spread * draws.normal()), float(TOP))
        return name, applied, magnitude, 1 if draws.below(2) else -1


def _enhance(kind: Callable[[Image.Image], Any]) -> Operation:
    """A PIL enhancer with a factor between 1 - 0.9 and 1 + 0.9; 1 leaves the image unchanged."""
    return lambda image, level, sign, fill: kind(image).enhance(max(0.1, 1.0 + sign * (level * 0.9)))


def _shift(matrix: Callable[[Image.Image, float], Sequence[float]], most: float) -> Operation:
    """An affine transform whose parameter is at most `most`."""

    def apply(image: Image.Image, level: float, sign: int, fill: Fill) -> Image.Image:
        data = matrix(image, sign * (level * most))
        transform, resample = Image.Transform.AFFINE, Image.Resampling.BICUBIC
        return image.transform(image.size, transform, data, resample=resample, fillcolor=fill)

    return apply


def _rotate(image: Image.Image, level: float, sign: int, fill: Fill) -> Image.Image:
    return image.rotate(sign * (level * 30.0), resample=Image.Resampling.BICUBIC, fillcolor=fill)


def _posterize(image: Image.Image, level: float, sign: int, fill: Fill) -> Image.Image:
    """Keep 4 to 0 bits. 0 bits is black, which Pillow >= 13 refuses to compute."""
    bits = 4 - int(level * 4)
    return ImageOps.posterize(image, bits) if bits else Image.new(image.mode, image.size)


def _solarize(image: Image.Image, level: float, sign: int, fill: Fill) -> Image.Image:
    return ImageOps.solarize(image, 256 - min(256, int(level * 256)))


def _solarize_add(image: Image.Image, level: float, sign: int, fill: Fill) -> Image.Image:
    """Add up to 110 to pixels below 128."""
    added = int(level * 110)
    table = [min(255, value + added) if value < 128 else value for value in range(256)]
    return image.point(table * len(image.getbands()))


OPERATIONS: dict[str, Operation] = {
    "AutoContrast": lambda image, level, sign, fill: ImageOps.autocontrast(image),
    "Equalize": lambda image, level, sign, fill: ImageOps.equalize(image),
    "Invert": lambda image, level, sign, fill: ImageOps.invert(image),
    "Rotate": _rotate,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "Color": _enhance(ImageEnhance.Color),
    "Contrast": _enhance(ImageEnhance.Contrast),
    "Brightness": _enhance(ImageEnhance.Brightness),
    "Sharpness": _enhance(ImageEnhance.Sharpness),
    "ShearX": _shift(lambda image, v: (1, v, 0, 0, 1, 0), 0.3),
    "ShearY": _shift(lambda image, v: (1, 0, 0, v, 1, 0), 0.3),
    "TranslateX": _shift(lambda image, v: (1, 0, v * image.size[0], 0, 1, 0), 0.45),
    "TranslateY": _shift(lambda image, v: (1, 0, 0, 0, 1, v * image.size[1]), 0.45),
}
"""The 15 operations; each takes an image, a level in 0..1, a direction and a fill colour."""

NAMES = tuple(OPERATIONS)
