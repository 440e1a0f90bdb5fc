"""The eight published sizes, in numbers that the code under test did not compute."""

from typing import NamedTuple

import pytest


class Published(NamedTuple):
    """Sizes of the released models, and their costs as the paper prints them."""

    depths: tuple[int, int, int, int]
    width: int  # channels of the first stage
    classifier: int  # parameters, 1000 classes
    encoder: int  # parameters of a released pre-trained file: no norm, no head
    fcmae: int  # parameters with the published decoder
    gmacs: float  # classifier at 224 px
    paper: float  # the same as the paper prints it (table 9)
    gmacs_384: float
    gmacs_512: float


SIZES = {
    "atto": Published((2, 2, 6, 2), 40, 3_708_400, 3_386_760, 7_257_992, 0.547, 0.55, 1.61, 2.9),
    "femto": Published((2, 2, 6, 2), 48, 5_233_240, 4_847_472, 8_751_472, 0.780, 0.78, 2.29, 4.1),
    "pico": Published((2, 2, 6, 2), 64, 9_066_280, 8_552_256, 12_521_792, 1.367, 1.37, 4.02, 7.1),
    "nano": Published((2, 2, 8, 2), 80, 15_623_800, 14_981_520, 19_016_592, 2.446, 2.45, 7.19, 12.8),
    "tiny": Published((3, 3, 9, 3), 96, 28_635_496, 27_864_960, 31_965_568, 4.456, 4.47, 13.09, 23.3),
    "base": Published((3, 3, 27, 3), 128, 88_717_800, 87_690_752, 91_922_432, 15.355, 15.4, 45.12, 80.2),
    "large": Published((3, 3, 27, 3), 192, 197_956_840, 196_416_768, 200_910_592, 34.361, 34.4, 100.98, 179.5),
    "huge": Published((3, 3, 27, 3), 352, 660_289_640, 657_467_008, 662_616_192, 114.922, 115.0, 337.72, 600.4),
}

every_size = pytest.mark.parametrize(
    ("preset", "size"), [pytest.param(f"convnextv2_{name}", size, id=name) for name, size in SIZES.items()]
)
