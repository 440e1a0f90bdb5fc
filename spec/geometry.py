"""Masks and patches: how many stay visible, and how many sites a patch has at each stage."""

from typing import Literal, get_args

Rounding = Literal["floor", "ceil", "round"]
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)

OFFSET: dict[Rounding, float] = {"floor": 0.5, "ceil": -0.5, "round": 0.0}
"""Rounding -> x such that K + x is safely rounded to K."""


def count_visible(grid: tuple[int, int], mask_ratio: float, rounding: Rounding = "floor") -> int:
    """K, the patches that each image keeps of its L: L * (1 - mask_ratio), rounded.

    floor: int(L * (1 - mask_ratio)), as published. ceil: L - int(L * mask_ratio), as in VisCy, which rounds the
    removed ones down. round: to the nearest, halves to even, as in SparK. Of 49 at 0.6 they keep 19, 20 and 20.
    In floats, on purpose: int(10 * (1 - 0.9)) is 0, and specs that fall into that trap are refused.
    """
    patches = grid[0] * grid[1]
    match rounding:
        case "floor":
            return int(patches * (1 - mask_ratio))
        case "ceil":
            return patches - int(patches * mask_ratio)
        case "round":
            return round(patches * (1 - mask_ratio))


def ratio_for(visible: int, patches: int, rounding: Rounding = "floor") -> float:
    """A mask ratio that keeps `visible` of the patches."""
    return 1 - (visible + OFFSET[rounding]) / patches


def patch_sites(patch_size: int, stem_stride: int, stage: int) -> int:
    """P, the side of a patch in sites at `stage`: 8, 4, 2, 1 in the published models."""
    return patch_size // (stem_stride * 2**stage)
