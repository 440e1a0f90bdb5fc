"""Masks: the same number of patches of every image, drawn from the seed and the sample's position alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from train.data.masks import random_masks

GRIDS = st.tuples(st.integers(1, 8), st.integers(2, 8))


@given(GRIDS, st.data(), st.integers(0, 2**32), st.integers(0, 2**62))
def test_exactly_k_patches_stay(grid: tuple[int, int], data: st.DataObject, seed: int, first: int) -> None:
    visible = data.draw(st.integers(1, grid[0] * grid[1] - 1), label="visible")
    masks = random_masks(seed, first + np.arange(5), grid, visible)
    assert masks.shape == (5, *grid)
    assert masks.dtype == np.uint8
    assert ((masks == 0).sum((1, 2)) == visible).all()
    assert ((masks == 0) | (masks == 1)).all()


@given(st.integers(0, 2**32), st.integers(0, 10**9), st.integers(1, 7))
def test_a_mask_depends_on_its_position_only(seed: int, first: int, split: int) -> None:
    positions = first + np.arange(8)
    whole = random_masks(seed, positions, (7, 7), 19)
    parts = [random_masks(seed, part, (7, 7), 19) for part in (positions[:split], positions[split:])]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_every_patch_is_removed_equally_often() -> None:
    """4,000 masks: a patch's share of removals, 30/49, is off by less than five standard deviations."""
    share = random_masks(3, np.arange(4000), (7, 7), 19).mean(0)
    deviation = (30 / 49 * 19 / 49 / 4000) ** 0.5
    assert (np.abs(share - 30 / 49) < 5 * deviation).all()


def test_seeds_and_positions_draw_different_masks() -> None:
    masks = [random_masks(seed, np.arange(3), (7, 7), 19) for seed in (0, 1)]
    flat = np.concatenate(masks).reshape(6, -1)
    assert len(np.unique(flat, axis=0)) == 6
