"""The classes of a data set: shown to the user, and matched between two."""

from collections.abc import Sequence

import numpy as np

from train.data.sources import Source
from train.errors import TrainError

NAMED = 12  # classes that are listed one by one


def describe(source: Source) -> str:
    """How many images of which classes, in a line."""
    counts = np.bincount(source.labels, minlength=len(source.classes)).tolist()
    if len(counts) <= NAMED:
        each = ", ".join(f"{name} ({count:,})" for name, count in zip(source.classes, counts, strict=True))
        return f"{len(source):,} images in {len(counts)} classes: {each}"
    each = f"{min(counts):,} to {max(counts):,} images per class"
    return f"{len(source):,} images in {len(counts):,} classes: {listed(source.classes)}; {each}"


def listed(classes: Sequence[str]) -> str:
    """The names of a few classes; the first and the last of many."""
    return ", ".join(classes if len(classes) <= NAMED else [*classes[:3], "...", classes[-1]])


def matched(source: Source, classes: Sequence[str]) -> tuple[int, ...]:
    """The place among `classes` of each of the source's; TrainError for one that is not there."""
    ids = {name: label for label, name in enumerate(classes)}
    unknown = [name for name in source.classes if name not in ids]
    if unknown:
        raise TrainError(f"class {unknown[0]!r} of the images to evaluate on is none of the model's: {listed(classes)}")
    return tuple(ids[name] for name in source.classes)
