"""IDX files, the format of MNIST: an array of images, and one of their labels in a file beside it."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from train.data.array_source import ArraySource, Named
from train.data.kinds import labels_beside, labels_name
from train.data.reading import DEFAULTS, IN_ARRAYS, Reading, ReadOptions
from train.errors import TrainError

TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
"""The third byte of a file -> the type of its values."""

GZIP = b"\x1f\x8b"


class Idx(ArraySource):
    """The images of a file such as train-images-idx3-ubyte.gz, with the labels of train-labels-idx1-ubyte.gz."""

    def __init__(self, file: Path, options: ReadOptions = DEFAULTS, left_out: tuple[str, ...] = ()) -> None:
        labels = labels_beside(file)
        unlabelled = f"put the class numbers (N,) beside {file}, as {labels_name(file)}"
        reading = Reading(options, left_out, unlabelled, uses=IN_ARRAYS)
        super().__init__(file, _named(file), _named(labels) if labels else None, reading)


def _named(file: Path) -> Named:
    return str(file), read_idx(file)


def read_idx(file: Path) -> np.ndarray:
    """The array of an IDX file, compressed with gzip or not, in the machine's byte order.

    The file holds two zeros, the type, the number of axes, the length of each axis (uint32), and the
    values, all big-endian. Raises TrainError if it does not.
    """
    data = _content(file)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in TYPES or not 1 <= data[3] <= 4:
        begin = f"begins with the bytes {data[:4].hex(' ')}" if data else "is empty"
        raise TrainError(f"{file}: not an IDX file of 1 to 4 axes; it {begin}, 00 00 08 03 would be uint8 (N, H, W)")
    dtype, start = np.dtype(TYPES[data[2]]), 4 + 4 * data[3]
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4)]
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise TrainError(
            f"{file}: {len(data):,} bytes (decompressed), but {dtype.name}{tuple(shape)} takes {expected:,};"
            " truncated or damaged, get it again"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _content(file: Path) -> bytes:
    """The decompressed bytes of a file."""
    try:
        data = file.read_bytes()
        return gzip.decompress(data) if data.startswith(GZIP) else data
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise TrainError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
