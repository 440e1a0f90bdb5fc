"""Drop path (stochastic depth): which blocks each image skips in training."""

from collections.abc import Sequence

import numpy as np

from backends.rng import Stream, uniform, words


def keep_paths(seed: int, positions: np.ndarray, rates: Sequence[float]) -> np.ndarray:
    """(N, blocks) uint8, 1 = keep; block b is skipped with probability rates[b].

    positions: (N,) positions of the samples in the run, the index of the random stream.
    """
    drawn = [uniform(words(seed, Stream.DROP_PATH, position, len(rates))) for position in positions.tolist()]
    return (np.stack(drawn) >= np.asarray(rates)).astype(np.uint8)
