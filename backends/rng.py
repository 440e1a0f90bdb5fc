"""Counter-based random streams: every draw is a pure function of (seed, stream, index).

Raw Philox words are used, not the methods of numpy's Generator: numpy promises the words
for ever and the methods only until its next release. A stream is a purpose; an index is a
position in it (a parameter, an epoch, a sample), so no draw depends on how work is split.
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a stream is for. Numbers are part of the file format: never renumber."""

    INIT = 0  # index: position in the parameter table
    SHUFFLE = 1  # index: epoch
    AUGMENT = 2  # index: position of the sample in the run
    ERASE = 3
    MASK = 4
    DROP_PATH = 5
    MIX = 6
    LABELS = 7  # index: 0 which images keep their label, 1 which choose a probe's penalty


def words(seed: int, stream: Stream, index: int, n: int) -> np.ndarray:
    """n raw 64-bit words."""
    return _philox(seed, stream, index).random_raw(n)


def generator(seed: int, stream: Stream, index: int) -> np.random.Generator:
    """The same words as a numpy Generator, for functions of users."""
    return np.random.Generator(_philox(seed, stream, index))


def _philox(seed: int, stream: Stream, index: int) -> np.random.Philox:
    return np.random.Philox(key=[seed, int(stream)], counter=[0, 0, 0, index])


def uniform(raw: np.ndarray) -> np.ndarray:
    """Words to float64 in [0, 1), 53 bits each."""
    return (raw >> np.uint64(11)) * 2.0**-53


def normal(raw: np.ndarray) -> np.ndarray:
    """2n words to n standard normals in float64, by Box and Muller."""
    u, v = uniform(raw).reshape(2, -1)
    return np.sqrt(-2.0 * np.log1p(-u)) * np.cos(2.0 * np.pi * v)
