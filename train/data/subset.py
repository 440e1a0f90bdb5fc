"""A few labelled images of a source, of every class alike: which ones is drawn from the seed."""

from collections.abc import Sequence

import numpy as np

from backends.rng import Stream, words
from train.data.sources import Item, Source
from train.errors import TrainError


class Subset:
    """Some images of a source under new numbers, with all of its classes."""

    def __init__(self, source: Source, chosen: np.ndarray, fingerprint: str) -> None:
        """chosen: the source's numbers of the images; fingerprint: what tells this choice from another."""
        self.source, self.chosen = source, chosen
        self.classes, self.fingerprint = source.classes, fingerprint
        self.labels: list[int] = np.asarray(source.labels)[chosen].tolist()

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Item:
        return self.source[int(self.chosen[index])]

    def name(self, index: int) -> str:
        """The source's key of an image."""
        return self.source.name(int(self.chosen[index]))


def labelled(source: Source, count: int | None, seed: int) -> Source:
    """The source, or `count` of its images, of each class as many as can be; TrainError for a count that cannot be.

    The classes take turns, each in an order drawn from the seed; where one has no image left,
    the others go on. So a larger count keeps the images of a smaller one, in any framework.
    """
    if count is None:
        return source
    classes = len(set(source.labels))
    if count < classes:
        raise TrainError(f"--train_labels {count}: the data has {classes:,} classes; give at least one label a class")
    if count > len(source):
        raise TrainError(f"--train_labels {count}: there are {len(source):,} images to train on; give as many at most")
    keys = words(seed, Stream.LABELS, 0, len(source))
    chosen = np.lexsort((keys, turns(source.labels, keys)))[:count]
    return Subset(source, np.sort(chosen), f"{source.fingerprint}, {count} labels by seed {seed}")


def turns(labels: Sequence[int] | np.ndarray, keys: np.ndarray) -> np.ndarray:
    """(N,) the place of each image, from 0, among those of its class in the order of their keys."""
    found = np.asarray(labels)
    order = np.lexsort((keys, found))
    grouped = found[order]
    places = np.empty(len(found), np.int64)
    places[order] = np.arange(len(found)) - np.searchsorted(grouped, grouped)
    return places
