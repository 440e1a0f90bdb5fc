"""Which patches are removed: exactly the same number of every image."""

import numpy as np

from backends.rng import Stream, words


def random_masks(seed: int, positions: np.ndarray, grid: tuple[int, int], visible: int) -> np.ndarray:
    """(N, G_h, G_w) uint8, 1 = removed; `visible` patches stay, each set of them equally likely.

    positions: (N,), the samples' places in the run, from which their masks are drawn.
    """
    patches = grid[0] * grid[1]
    masks = np.ones((len(positions), patches), np.uint8)
    for mask, position in zip(masks, positions.tolist(), strict=True):
        mask[np.argsort(words(seed, Stream.MASK, position, patches), kind="stable")[:visible]] = 0
    return masks.reshape(-1, *grid)
