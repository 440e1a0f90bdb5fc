"""Batches as pure functions of their number: what an epoch's order, a sample and a micro-batch are."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from backends.protocol import Batch
from backends.rng import Stream, words
from train.data.decode import BrokenImage, Least, decode
from train.data.sources import Source
from train.data.transforms import Draws
from train.errors import TrainError

PATIENCE = 64
"""Broken images in a row after which the data, not an image, is broken."""

Extra = Callable[[np.ndarray, np.ndarray], Batch]


class Augment(Protocol):
    """An image (H, W, C) uint8 to one of the model's size."""

    def __call__(self, image: np.ndarray, draws: Draws) -> np.ndarray: ...

    def least(self, draws: Draws) -> Least | None:
        """How small the image may be decoded that the same draws will change; None for as it is."""


@dataclass(frozen=True)
class Samples:
    """The augmented sample at every position of a run, drawn from (seed, position) and nothing else.

    Position g of the run is sample g % epoch of its epoch's permutation, where an epoch is
    as many whole updates as the source fills. augment: an image to the model's size.
    """

    source: Source
    seed: int
    channels: int
    batch_size: int
    epoch_size: int
    augment: Augment

    def positions(self, index: int) -> np.ndarray:
        """(N,) the places in the run of the samples of micro-batch `index`."""
        return np.arange(index * self.batch_size, (index + 1) * self.batch_size)

    def samples(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Augmented images (N, H, W, C) uint8 and labels (N,) int32 at some positions, and the lines of the broken."""
        images, labels, broken = [], [], []
        for position in positions.tolist():
            image, label, failures = self._sample(position)
            images.append(image)
            labels.append(label)
            broken += failures
        return np.stack(images), np.array(labels, np.int32), broken

    def key(self, position: int) -> str:
        """The key of the item whose turn it is at a position; where it is broken, another one stands in for it."""
        epoch, place = divmod(position, self.epoch_size)
        return self.source.name(int(permutation(self.seed, epoch, len(self.source))[place]))

    def _sample(self, position: int) -> tuple[np.ndarray, int, list[str]]:
        """The augmented image, its label, and the failures of those before it in the epoch's order."""
        epoch, place = divmod(position, self.epoch_size)
        order = permutation(self.seed, epoch, len(self.source))
        failures: list[str] = []
        for offset in range(min(PATIENCE, len(order))):
            item = int(order[(place + offset) % len(order)])
            try:
                image, label = read(self.source, item, self.channels, self.augment.least(self._draws(position)))
            except BrokenImage as error:
                failures.append(str(error))
            else:
                return self.augment(image, self._draws(position)), label, failures
        raise TrainError(f"--data_path: {len(failures)} images in a row are broken, the first is {failures[0]}")

    def _draws(self, position: int) -> Draws:
        return Draws(self.seed, Stream.AUGMENT, position)


@dataclass(frozen=True)
class Feed(Samples):
    """Micro-batch `index` of a run. extra(positions, labels) adds the task's own columns: masks, targets."""

    extra: Extra

    def __call__(self, index: int) -> tuple[Batch, list[str]]:
        """The batch, and a line for each broken image that another one stands in for."""
        positions = self.positions(index)
        images, labels, broken = self.samples(positions)
        return {"images": images, **self.extra(positions, labels)}, broken


@dataclass(frozen=True)
class Share:
    """What process `rank` of several makes of a run: its rows of micro-batch `index`.

    feed: micro-batches of one process's rows, which lie one after the other in the run.
    """

    feed: Callable[[int], tuple[Batch, list[str]]]
    rank: int
    processes: int

    def __call__(self, index: int) -> tuple[Batch, list[str]]:
        return self.feed(index * self.processes + self.rank)


def read(source: Source, index: int, channels: int, least: Least | None = None) -> tuple[np.ndarray, int]:
    """Image (H, W, C) uint8 and label of an item; BrokenImage names it when it cannot be read."""
    try:
        data, label, key = source[index]
    except OSError as error:
        raise BrokenImage(f"{error.filename or f'image {index}'}: {error.strerror}") from None
    if isinstance(data, bytes):
        try:
            return decode(data, channels, least), label
        except BrokenImage as error:
            raise BrokenImage(f"{key}: {error}") from None
    found = data.shape[-1]
    if found != channels:
        raise TrainError(f"--in_chans {channels}: {key} has {found} channels; give --in_chans {found}")
    return data, label


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of `count` items in an epoch."""
    return np.argsort(words(seed, Stream.SHUFFLE, epoch, count), kind="stable")
