"""The published sizes, in numbers that the code under test did not compute."""

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
    "convnextv2_atto": Published((2, 2, 6, 2), 40, 3_708_400, 3_386_760, 7_257_992, 0.547, 0.55, 1.61, 2.9),
    "convnextv2_femto": Published((2, 2, 6, 2), 48, 5_233_240, 4_847_472, 8_751_472, 0.780, 0.78, 2.29, 4.1),
    "convnextv2_pico": Published((2, 2, 6, 2), 64, 9_066_280, 8_552_256, 12_521_792, 1.367, 1.37, 4.02, 7.1),
    "convnextv2_nano": Published((2, 2, 8, 2), 80, 15_623_800, 14_981_520, 19_016_592, 2.446, 2.45, 7.19, 12.8),
    "convnextv2_tiny": Published((3, 3, 9, 3), 96, 28_635_496, 27_864_960, 31_965_568, 4.456, 4.47, 13.09, 23.3),
    "convnextv2_base": Published((3, 3, 27, 3), 128, 88_717_800, 87_690_752, 91_922_432, 15.355, 15.4, 45.12, 80.2),
    "convnextv2_large": Published(
        (3, 3, 27, 3), 192, 197_956_840, 196_416_768, 200_910_592, 34.361, 34.4, 100.98, 179.5
    ),
    "convnextv2_huge": Published(
        (3, 3, 27, 3), 352, 660_289_640, 657_467_008, 662_616_192, 114.922, 115.0, 337.72, 600.4
    ),
    "convnext_atto": Published((2, 2, 6, 2), 40, 3_695_520, 3_373_880, 7_241_528, 0.547, 0.55, 1.61, 2.9),
    "convnext_femto": Published((2, 2, 6, 2), 48, 5_217_784, 4_832_016, 8_732_432, 0.780, 0.78, 2.29, 4.1),
    "convnext_pico": Published((2, 2, 6, 2), 64, 9_045_672, 8_531_648, 12_497_600, 1.367, 1.37, 4.02, 7.1),
    "convnext_nano": Published((2, 2, 8, 2), 80, 15_593_560, 14_951_280, 18_982_768, 2.446, 2.45, 7.19, 12.8),
    "convnext_tiny": Published((3, 3, 9, 3), 96, 28_589_128, 27_818_592, 31_915_616, 4.456, 4.5, 13.09, 23.3),
    "convnext_small": Published((3, 3, 27, 3), 96, 50_223_688, 49_453_152, 53_550_176, 8.684, 8.7, 25.52, 45.4),
    "convnext_base": Published((3, 3, 27, 3), 128, 88_591_464, 87_564_416, 91_792_512, 15.355, 15.4, 45.12, 80.2),
    "convnext_large": Published((3, 3, 27, 3), 192, 197_767_336, 196_227_264, 200_717_504, 34.361, 34.4, 100.98, 179.5),
    "convnext_xlarge": Published(
        (3, 3, 27, 3), 256, 350_196_968, 348_143_872, 352_896_256, 60.921, 60.9, 179.03, 318.3
    ),
}
"""V1's parameters and MACs were counted in timm's modules, FCMAE's by hand; below tiny the paper's MACs are V2's."""

every_size = pytest.mark.parametrize(("preset", "size"), list(SIZES.items()), ids=list(SIZES))
