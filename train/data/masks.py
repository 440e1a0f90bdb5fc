"""Random masks: the same number of patches is removed from each image."""

import numpy as np

from backends.rng import Stream, words


def random_masks(seed: int, positions: np.ndarray, grid: tuple[int, int], visible: int) -> np.ndarray:
    """(N, G_h, G_w) uint8, 1 = removed; `visible` patches are kept; all subsets are equally likely.

    positions: (N,) positions of the samples in the run, the index of the random stream.
    """
    patches = grid[0] * grid[1]
    masks = np.ones((len(positions), patches), np.uint8)
    for mask, position in zip(masks, positions.tolist(), strict=True):
        mask[np.argsort(words(seed, Stream.MASK, position, patches), kind="stable")[:visible]] = 0
    return masks.reshape(-1, *grid)
