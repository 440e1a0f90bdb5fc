"""Image files for the tests: good ones, and bad ones of every kind."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data import cache


def pixels(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    """A smooth random picture (H, W, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: np.ndarray, kind: str = "JPEG", mode: str | None = None, **options: object) -> bytes:
    """An image file. mode: Pillow's, such as "CMYK"; that of the array by default."""
    file = io.BytesIO()
    made = Image.fromarray(image)
    (made.convert(mode) if mode else made).save(file, kind, **options)
    return file.getvalue()


def tree(root: Path, classes: int = 2, each: int = 4) -> Path:
    """A folder of classes c0, c1, ... with `each` JPEGs per class."""
    for label in range(classes):
        folder = root / f"c{label}"
        folder.mkdir(parents=True)
        for number in range(each):
            (folder / f"{number}.jpg").write_bytes(encoded(pixels(100 * label + number)))
    return root


def trust(patch: pytest.MonkeyPatch) -> None:
    """Let the cache of listings trust the file system of the tests at once, whatever it is."""
    patch.setattr(cache, "SETTLED", 0.0)
    patch.setattr(cache, "TRUSTED", {None, *cache._file_systems().values()})
