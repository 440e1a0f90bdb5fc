"""STL-10's binary files: uint8 images, and their labels in a file beside them."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from train.data.array_source import ArraySource, Named
from train.data.kinds import CLASS_NAMES, labels_beside, labels_name
from train.data.reading import DEFAULTS, Reading, ReadOptions
from train.errors import TrainError

SHAPE = (3, 96, 96)
"""Channels, columns and rows of an image, as stored."""

SIZE = 3 * 96 * 96  # bytes


class Stl10(ArraySource):
    """The images of a file such as train_X.bin, read as they are needed, with the labels of train_y.bin.

    Labels are 1, 2, ..., the lines of class_names.txt.
    """

    def __init__(self, file: Path, options: ReadOptions = DEFAULTS, left_out: tuple[str, ...] = ()) -> None:
        options = replace(options, decoding=replace(options.decoding, channel_axis="last"))
        unlabelled = f"put the labels (N,), uint8 from 1, beside {file}, as {labels_name(file)}"
        labels, names = _labels(file)
        super().__init__(file, (str(file), _images(file)), labels, Reading(options, left_out, unlabelled, uses=()))
        self.classes = names or self.classes

    @property
    def fingerprint(self) -> str:
        """Of the labels and every hundredth image: files with the same of both count as the same."""
        labels = f"{len(self)} {self.labels}"
        return hashlib.sha256(labels.encode() + self.images[::100].tobytes()).hexdigest()[:16]

    def __reduce__(self) -> tuple[type, tuple[Path, ReadOptions, tuple[str, ...]]]:
        """Pickled as its file."""
        return Stl10, (self.file, self.reading.options, self.reading.left_out)


def _images(file: Path) -> np.ndarray:
    """(N, H, W, C) uint8, a view of the file."""
    try:
        size = file.stat().st_size
        if not size or size % SIZE:
            raise TrainError(f"{file}: {size:,} bytes are no whole images of {SIZE:,} each; truncated, get it again")
        return np.asarray(np.memmap(file, np.uint8, "r")).reshape(-1, *SHAPE).transpose(0, 3, 2, 1)
    except OSError as error:
        raise TrainError(f"{file}: {error.strerror}") from None


def _labels(images: Path) -> tuple[Named | None, tuple[str, ...]]:
    """Class numbers from 0, if there is a file of labels, and the names of the classes."""
    file, listed = labels_beside(images), images.with_name(CLASS_NAMES)
    if file is None:
        return None, ()
    try:
        labels = np.frombuffer(file.read_bytes(), np.uint8)
        names = tuple(filter(None, map(str.strip, listed.read_text(encoding="utf-8").splitlines())))
    except (OSError, UnicodeDecodeError) as error:
        where = getattr(error, "filename", None) or listed
        raise TrainError(f"{where}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    wrong = labels[(labels < 1) | (labels > len(names))]
    if len(wrong):
        raise TrainError(f"{file}: has the label {wrong[0]}; labels are 1 to {len(names)}, the lines of {listed}")
    return (str(file), labels - np.uint8(1)), names
