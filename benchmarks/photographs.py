"""Synthetic JPEGs that cost a decoder as much as photographs: noise whose amplitude falls as 1/f."""

import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from train.data.reading import Reading

CLASSES = 1000
CONTRAST, COLOUR = 44, 0.25
"""Chosen so that 500 x 400 pixels at quality 90 take 110 kB, the average of ImageNet's files."""


def photograph(seed: int, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: grey noise shared by the channels, and a little noise per channel."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    phases = rng.standard_normal((2, 4, *frequency.shape))
    planes = np.fft.irfft2((phases[0] + 1j * phases[1]) / frequency, (height, width))
    planes /= planes.std((1, 2), keepdims=True)
    pixels = 128 + CONTRAST * (planes[0] + COLOUR * planes[1:])
    return np.ascontiguousarray(np.moveaxis(pixels.clip(0, 255).astype(np.uint8), 0, -1))


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    """The pixels as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


@dataclass(frozen=True)
class Photographs:
    """A `train.data.sources.Source` of JPEGs in memory, so that no disk is measured."""

    files: tuple[bytes, ...]
    classes: tuple[str, ...] = field(default=tuple(map(str, range(CLASSES))), repr=False)
    fingerprint: str = "photographs"
    reading: Reading = field(default=Reading(), repr=False)

    @classmethod
    def make(cls, count: int, height: int, width: int) -> "Photographs":
        return cls(tuple(jpeg(photograph(seed, height, width)) for seed in range(count)))

    @property
    def labels(self) -> list[int]:
        return [index * 37 % CLASSES for index in range(len(self))]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[bytes, int, str]:
        return self.files[index], index * 37 % CLASSES, self.name(index)

    def name(self, index: int) -> str:
        """A name for messages."""
        return f"photograph {index}"
