"""Class names: their order, how they are shown, and how those of two data sets or of a checkpoint are matched.

Names are compared in Unicode's composed form (NFC): macOS stores the name of a folder decomposed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import normalize

import numpy as np

from train.data.names import printable
from train.data.sources import Source
from train.data.tars import UNLABELLED
from train.errors import TrainError

LISTED = 12  # classes that are listed one by one


@dataclass(frozen=True)
class Match:
    """index: the model's class index for each class of the data. note: an assumption to print, or None."""

    index: tuple[int, ...]
    note: str | None = None


def describe(source: Source) -> str:
    """One line: the number of images, the classes, and what was left out."""
    counts = np.bincount(source.labels, minlength=len(source.classes)).tolist()
    line = f"{len(source):,} images in {len(counts):,} {'class' if len(counts) == 1 else 'classes'}: "
    if not is_labelled(source):
        line = f"{len(source):,} images without labels"
    elif len(counts) <= LISTED:
        line += ", ".join(f"{printable(name)} ({n:,})" for name, n in zip(source.classes, counts, strict=True))
    else:
        line += f"{listed(source.classes)}; {min(counts):,} to {max(counts):,} images per class"
    left_out = [f"left out: {', '.join(source.reading.left_out)}"] if source.reading.left_out else []
    return "; ".join([line, *map(printable, [*left_out, *source.reading.notes])])


def listed(classes: Sequence[str]) -> str:
    """The names of a few classes; the first and the last of many."""
    few = classes if len(classes) <= LISTED else [*classes[:3], "...", classes[-1]]
    return ", ".join(map(printable, few))


def require_several(source: Source, flag: str) -> int:
    """The number of classes. Raises TrainError, with the remedy for the kind of source, if there is only one."""
    if len(source.classes) < 2:
        raise TrainError(f"{flag}: all images are of one class; {source.reading.unlabelled}")
    return len(source.classes)


def is_labelled(source: Source) -> bool:
    """Whether the images have labels; otherwise all are of one nameless class."""
    return source.classes != (UNLABELLED,)


def require_labels(source: Source, flag: str) -> None:
    """TrainError, with the remedy, if the images to evaluate on have no labels."""
    if not is_labelled(source):
        raise TrainError(f"{flag}: images without labels cannot be evaluated on; {source.reading.unlabelled}")


def match(model: Sequence[str], data: Sequence[str]) -> Match:
    """Match two lists of class names by name. Raises TrainError for a name that is not one of the model's."""
    ids, data = _ids(model), _composed(data)
    unknown = [name for name in data if name not in ids]
    if unknown:
        raise TrainError(
            f"class {_quoted(unknown[0])} of the images to evaluate on is none of the model's: {listed(model)}"
        )
    twice = next((name for name in data if ids[name] < 0), None)
    if twice is not None:
        raise TrainError(f"class {_quoted(twice)}: the model has several classes of this name; which one is unknown")
    return Match(tuple(ids[name] for name in data))


def match_checkpoint(meta: Mapping[str, Any], count: int, data: Sequence[str]) -> Match:
    """Match the classes of a data set with those of a checkpoint that has `count` classes.

    By name if the checkpoint has names. Those of another library may be none of the folders'
    (ImageNet's words for n01440764); if none is the same, or if there are no names, equal numbers
    of classes are matched in order and the note says so. The names of a run of ours are those of
    its data, so they must match. Raises TrainError if the order cannot be assumed.
    """
    names = names_of(meta, count)
    if names and ("identity" in meta or set(_composed(names)) & set(_composed(data))):
        return match(names, data)
    why = f"its class names ({listed(names)}) are not the data's" if names else "the checkpoint has no class names"
    return _in_order(why, count, data)


def names_of(meta: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
    """The class names in a checkpoint's meta, or None. Placeholders such as LABEL_0 are no names."""
    for key in ("classes", "labels"):
        names = meta.get(key)
        if isinstance(names, list | tuple) and len(names) == count and not _placeholders(names):
            return tuple(map(str, names))
    return None


def _in_order(why: str, count: int, data: Sequence[str]) -> Match:
    numbers = list(data) == [str(number) for number in range(len(data))]
    if len(data) == count or (numbers and len(data) < count):
        order = f"{printable(data[0])} is class 0, {printable(data[-1])} is class {len(data) - 1}"
        return Match(tuple(range(len(data))), f"{why}; the data's order is assumed: {order}")
    raise TrainError(
        f"{why}; it has {count:,} classes, the data {len(data):,} ({listed(data)}), so they cannot be matched;"
        f" evaluate on images of all {count:,}"
    )


def _ids(names: Sequence[str]) -> dict[str, int]:
    """Name -> class index; -1 for a name that several classes have."""
    composed = _composed(names)
    counts = Counter(composed)
    return {name: label if counts[name] == 1 else -1 for label, name in enumerate(composed)}


def _composed(names: Sequence[str]) -> list[str]:
    return [normalize("NFC", name) for name in names]


def _placeholders(names: Sequence[Any]) -> bool:
    return all(name == f"LABEL_{label}" for label, name in enumerate(names))


def _quoted(name: str) -> str:
    return f"'{printable(name)}'"
