"""Turn the labels that a data set stores, numbers or names, into class indices."""

from collections.abc import Sequence
from unicodedata import normalize

NUMBERS = 10**6
"""Labels below are class numbers; greater ones are names of classes."""

HIDDEN = -1
"""The label that the hub gives to images of a test set whose labels are not published."""


def number(labels: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """The classes, and the class index of each label.

    Numbers are indices, so there are max + 1 classes. Names are sorted as text, as ImageFolder
    sorts folders.
    """
    names = [normalize("NFC", label) for label in labels]
    known = set(names)
    if all(is_number(name) for name in known):
        return tuple(str(n) for n in range(max(map(int, known)) + 1)), [int(name) for name in names]
    return by_name(names)


def by_name(labels: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """The sorted names (NFC), and the index of each label among them."""
    names = [normalize("NFC", label) for label in labels]
    classes = tuple(sorted(set(names)))
    ids = {name: label for label, name in enumerate(classes)}
    return classes, [ids[name] for name in names]


def is_number(label: str) -> bool:
    """Whether a label is a class number: decimal digits, below NUMBERS."""
    return label.isascii() and label.isdigit() and int(label) < NUMBERS


def is_label(text: str) -> bool:
    """Whether a text is a class number or a name: not empty and not HIDDEN."""
    return text.strip() not in ("", str(HIDDEN))


def not_published(what: str) -> str:
    """Why images have no classes where every label is HIDDEN. what: where the labels are."""
    return f"each {what} is {HIDDEN}: the labels are not published"
