"""Class-balanced random subsets of a source, for training with few labels."""

from collections.abc import Sequence

import numpy as np

from backends.rng import Stream, words
from train.data.sources import Item, Source
from train.errors import TrainError


class Subset:
    """Some images of a source, renumbered from 0, with all of its classes."""

    def __init__(self, source: Source, chosen: np.ndarray, fingerprint: str) -> None:
        """chosen: (N,) indices into the source; fingerprint: identifies this subset."""
        self.source, self.chosen = source, chosen
        self.classes, self.fingerprint, self.reading = source.classes, fingerprint, source.reading
        self.labels: list[int] = np.asarray(source.labels)[chosen].tolist()

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Item:
        return self.source[int(self.chosen[index])]

    def name(self, index: int) -> str:
        """The key of an image in the source."""
        return self.source.name(int(self.chosen[index]))


def labelled(source: Source, count: int | None, seed: int) -> Source:
    """`count` random images of the source, balanced over its classes; all of them for None.

    Images are taken from the classes in turn, in an order drawn from the seed, until a class has
    none left. A larger count contains the images of a smaller one. Raises TrainError for a count
    below the number of classes or above the number of images.
    """
    if count is None:
        return source
    classes = len(set(source.labels))
    if count < classes:
        raise TrainError(f"--train_labels {count}: the data has {classes:,} classes; give at least one label per class")
    if count > len(source):
        raise TrainError(f"--train_labels {count}: there are {len(source):,} images to train on; give as many at most")
    keys = words(seed, Stream.LABELS, 0, len(source))
    chosen = np.lexsort((keys, rank_in_class(source.labels, keys)))[:count]
    return Subset(source, np.sort(chosen), f"{source.fingerprint}, {count} labels by seed {seed}")


def rank_in_class(labels: Sequence[int] | np.ndarray, keys: np.ndarray) -> np.ndarray:
    """(N,) rank of each image, from 0, among the images of its class sorted by key."""
    found = np.asarray(labels)
    order = np.lexsort((keys, found))
    grouped = found[order]
    places = np.empty(len(found), np.int64)
    places[order] = np.arange(len(found)) - np.searchsorted(grouped, grouped)
    return places
