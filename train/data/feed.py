"""Batches as pure functions of their index: shuffling, samples and micro-batches."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, cast

import numpy as np

from backends.protocol import Batch
from backends.rng import Stream, words
from train.data.arrays import OtherChannels, to_hwc
from train.data.decode import BrokenImage, MinSize, decode
from train.data.names import printable
from train.data.no_data import joined, split
from train.data.pixels import batched
from train.data.sources import Masked, Source
from train.data.transforms import Draws
from train.errors import TrainError

MAX_BROKEN = 64
"""Broken images in a row after which the run stops."""

Extra = Callable[[np.ndarray, np.ndarray, np.ndarray | None], Batch]


class Augment(Protocol):
    """Augment an image (H, W, C), uint8 or float32, to the model's input size."""

    def __call__(self, image: np.ndarray, draws: Draws) -> np.ndarray: ...

    def min_size(self, draws: Draws) -> MinSize | None:
        """The smallest size to decode to for the same draws; None: full size."""


@dataclass(frozen=True)
class Samples:
    """The augmented sample at each position of a run, a function of (seed, position) only.

    Position g is sample g % epoch_size of the permutation of epoch g // epoch_size. An epoch is a
    whole number of updates, of epoch_rows rows: those past the last image of the source are padding.
    augment: resizes an image to the model's input size.
    """

    source: Source
    seed: int
    channels: int
    batch_size: int
    epoch_rows: int
    augment: Augment

    @property
    def epoch_size(self) -> int:
        """Images per epoch."""
        return min(self.epoch_rows, len(self.source))

    def positions(self, index: int) -> np.ndarray:
        """(N,) positions of the samples in micro-batch `index`; padding has that of the epoch's last one."""
        epoch, row = self._rows(index)
        return epoch * self.epoch_size + np.minimum(row, self.epoch_size - 1)

    def samples(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Augmented images (N, H, W, C), uint8 or float32, labels (N,) int32, and one line per broken image."""
        images, labels, broken = [], [], []
        for position in positions.tolist():
            image, label, failures = self._sample(position)
            images.append(image)
            labels.append(label)
            broken += failures
        return np.stack(images), np.array(labels, np.int32), broken

    def key(self, position: int) -> str:
        """The key of the item at a position. If that item is broken, the batch holds the next one instead."""
        epoch, place = divmod(position, self.epoch_size)
        return printable(self.source.name(int(permutation(self.seed, epoch, len(self.source))[place])))

    def _rows(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(N,) the epoch of each row of micro-batch `index`, and its number in the epoch."""
        return np.divmod(np.arange(index * self.batch_size, (index + 1) * self.batch_size), self.epoch_rows)

    def _sample(self, position: int) -> tuple[np.ndarray, int, list[str]]:
        """The augmented image and label of the first readable item from `position` on, and the failures before it."""
        epoch, place = divmod(position, self.epoch_size)
        order = permutation(self.seed, epoch, len(self.source))
        failures: list[str] = []
        for offset in range(min(MAX_BROKEN, len(order))):
            item = int(order[(place + offset) % len(order)])
            try:
                smallest = self.augment.min_size(self._draws(position))
                image, label = read_with_mask(self.source, item, self.channels, smallest)
            except BrokenImage as error:
                failures.append(str(error))
            else:
                return self.augment(image, self._draws(position)), label, failures
        raise TrainError(f"--data_path: {len(failures)} images in a row are broken, the first is {failures[0]}")

    def _draws(self, position: int) -> Draws:
        return Draws(self.seed, Stream.AUGMENT, position)


@dataclass(frozen=True)
class Feed(Samples):
    """Micro-batch `index` of a run. extra(positions, images, no_data) adds the columns of the task: masks.

    update_size: images per update, where the last one of an epoch may have fewer; its batches have weights.
    mean, std: normalise images that are not uint8.
    """

    extra: Extra
    update_size: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __call__(self, index: int) -> tuple[Batch, list[str]]:
        """The batch, and one line per broken image that was replaced by the next one."""
        positions = self.positions(index)
        unique, rows = np.unique(positions, return_inverse=True)
        padded = len(unique) < len(positions)  # padding is decoded once
        images, _, broken = self.samples(unique if padded else positions)
        images, no_data = split(images[rows] if padded else images, self.channels)
        extra = self.extra(positions, images, no_data)
        batch: Batch = {"images": batched(images, self.mean, self.std), **extra}
        if self.update_size is not None:
            batch["weights"] = self._weights(index, self.update_size)
        return batch, broken

    def _weights(self, index: int, update_size: int) -> np.ndarray:
        """(N,) the factor on each image's loss that makes the mean over an update's rows that over its images."""
        row = self._rows(index)[1]
        last = self.epoch_rows - update_size
        partial = np.where(row < self.epoch_size, update_size / (self.epoch_size - last), 0.0)
        return np.where(row < last, 1.0, partial)


@dataclass(frozen=True)
class RankShard:
    """The micro-batches of one process: rows of rank `rank` in micro-batch `index`.

    feed: makes micro-batches of one process's size; consecutive ones go to consecutive ranks.
    """

    feed: Callable[[int], tuple[Batch, list[str]]]
    rank: int
    processes: int

    def __call__(self, index: int) -> tuple[Batch, list[str]]:
        return self.feed(index * self.processes + self.rank)


def read(source: Source, index: int, channels: int | None, min_size: MinSize | None = None) -> tuple[np.ndarray, int]:
    """Image (H, W, C) and label of an item. Raises BrokenImage with the item's name.

    The image is uint8, or float32 in the unit of --mean and --std (`Values.scaled`). channels None: as many as it has.
    """
    try:
        data, label, key = source[index]
    except OSError as error:
        where = os.fsdecode(error.filename) if error.filename else f"image {index}"
        raise BrokenImage(printable(f"{where}: {error.strerror}")) from None
    how = source.reading.options.decoding
    try:
        if isinstance(data, bytes):
            pixels = decode(data, channels, min_size, how)
        else:
            pixels = to_hwc(data, channels, how.channel_axis)
        return source.reading.values.scaled(pixels), label
    except OtherChannels as error:
        if isinstance(data, np.ndarray):  # so have all images of the source
            raise TrainError(printable(f"--in_chans {channels}: {key} {error}")) from None
        raise BrokenImage(printable(f"{key}: {error}")) from None
    except BrokenImage as error:
        raise BrokenImage(printable(f"{key}: {error}")) from None
    except TrainError as error:
        raise TrainError(printable(f"{error} ({key})")) from None


def read_with_mask(
    source: Source, index: int, channels: int, min_size: MinSize | None = None
) -> tuple[np.ndarray, int]:
    """As `read`, but where the data has masks, the mask is one more channel of the image (`no_data.joined`)."""
    image, label = read(source, index, channels, min_size)
    if not source.reading.masked:
        return image, label
    key = source.name(index)
    try:
        mask = cast(Masked, source).mask(index)
    except OSError as error:
        raise BrokenImage(printable(f"{key}: its mask cannot be read ({error.strerror})")) from None
    return joined(image, mask, printable(key)), label


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """(count,) the order of the items in an epoch."""
    return np.argsort(words(seed, Stream.SHUFFLE, epoch, count), kind="stable")
