"""Masks and patches: how many stay visible, and how many sites a patch has at each stage."""


def count_visible(grid: tuple[int, int], mask_ratio: float) -> int:
    """K = int(L * (1 - mask_ratio)) as published: the patches that each image keeps of its L.

    In floats, on purpose: int(10 * (1 - 0.9)) is 0, and specs that fall into that trap are refused.
    """
    return int(grid[0] * grid[1] * (1 - mask_ratio))


def patch_sites(patch_size: int, stem_stride: int, stage: int) -> int:
    """P, the side of a patch in sites at `stage`: 8, 4, 2, 1 in the published models."""
    return patch_size // (stem_stride * 2**stage)
