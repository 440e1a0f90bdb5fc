"""A folder tree of images with one folder per class, as ImageNet is laid out."""

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from train.data import cache, labels, layout
from train.data.images import SUFFIXES, is_image, read_head, without_arrays
from train.data.names import counted
from train.data.reading import DEFAULTS, Reading, ReadOptions, probed
from train.errors import TrainError


class NoImages(TrainError):
    """There is no image below a folder."""


class Listing(NamedTuple):
    """The contents of one folder, and its cache stamp (None: never reuse)."""

    stamp: list[int] | None
    folders: list[str]
    files: list[str]
    others: list[str]


Index = dict[str, Listing]
"""Folder relative to the root -> its listing."""


class Folder:
    """The images below a folder, sorted by path; the class is the first folder on the way to a file.

    Images beside the class folders form a class "." of their own, so that a plain folder of
    unlabelled images can be used for pre-training. Links are followed.
    """

    def __init__(self, root: Path, options: ReadOptions = DEFAULTS, left_out: tuple[str, ...] = ()) -> None:
        self.root = root
        if not root.is_dir():
            raise TrainError(f"{root}: no such folder")
        try:
            tree = _Tree(root)
        except OSError as error:
            raise TrainError(f"{os.fspath(error.filename or root)}: {error.strerror}") from None
        found = sorted(os.path.join(folder, name) for folder, each in tree.index.items() for name in each.files)
        if not found:
            raise NoImages(f"{root}: no image below it ({', '.join(SUFFIXES)}, or images of another suffix)")
        self.files = without_arrays(found)
        beside = counted(".npy file beside images", ".npy files beside images", sorted({*found} - {*self.files}))
        _refuse_parts(root, tree.index)
        raw = [os.path.dirname(file).split(os.sep)[0] or "." for file in self.files]
        _refuse_lookalikes(root, set(raw))
        self.classes, self.labels = labels.by_name(raw)
        left_out = (*left_out, *tree.left_out(set(raw)), *beside)
        self.reading = probed(Reading(options, left_out, notes=tuple(tree.notes())), self)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(self.files).encode(errors="surrogateescape")).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[bytes, int, str]:
        return (self.root / self.files[index]).read_bytes(), self.labels[index], self.name(index)

    def name(self, index: int) -> str:
        """The path of an image."""
        return str(self.root / self.files[index])


class _Tree:
    """Every listing below a root. Folders that are provably unchanged since the last run are not listed again.

    The root itself is always listed, so that an unreadable one is an error.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.known = root, _load(root)
        self.index: Index = {}
        self.loops: list[str] = []
        self.places: dict[tuple[int, int], list[str]] = {}
        self._walk("", ())
        kept = {folder: listing for folder, listing in self.index.items() if listing.stamp}
        if kept != self.known:
            cache.store("folder", root, kept)

    def left_out(self, classes: set[str]) -> Iterator[str]:
        """Phrases for what is not used."""
        empty = sorted(set(self.index[""].folders) - classes - set(self.loops))
        others = [os.path.join(folder, name) for folder, listing in self.index.items() for name in listing.others]
        yield from counted("folder without images", "folders without images", empty)
        yield from counted("link to a folder above it", "links to folders above them", self.loops)
        yield from counted("file that is no image", "files that are no images", sorted(others))

    def notes(self) -> Iterator[str]:
        """Phrases for folders that are read twice."""
        for folders in self.places.values():
            if len(folders) > 1:
                yield f"{' and '.join(folders)} are one folder, its images count {len(folders)} times"

    def _walk(self, folder: str, above: tuple[tuple[int, int], ...]) -> None:
        state = os.stat(self.root / folder)
        place = (state.st_dev, state.st_ino)
        if place in above:  # a link back up the tree
            self.loops.append(folder)
            return
        self.places.setdefault(place, []).append(folder)
        stamp, listing = cache.stamp(state), self.known.get(folder)
        if not folder or listing is None or stamp is None or listing.stamp != stamp:
            listing = _list(self.root / folder, stamp)
        self.index[folder] = listing
        for name in listing.folders:
            self._walk(os.path.join(folder, name), (*above, place))


def _list(folder: Path, stamp: list[int] | None) -> Listing:
    folders: list[str] = []
    files: list[str] = []
    others: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            else:
                (files if is_image(entry.name, partial(read_head, entry.path)) else others).append(entry.name)
    return Listing(stamp, sorted(folders), sorted(files), sorted(others))


def _refuse_parts(root: Path, index: Index) -> None:
    """TrainError if a folder below the root has parts for training and evaluation, which would be merged."""
    for folder, listing in index.items():
        found = layout.parts_in(name for name in listing.folders if name.lower() in layout.WORDS)
        if folder and len(found) > 1:
            parts = " and ".join(f"{name}/" for name in found.values())
            raise TrainError(f"{root}: {folder}/ has {parts} in it, which would be merged; give {root / folder}")


def _refuse_lookalikes(root: Path, names: set[str]) -> None:
    """TrainError if two class folders differ only in how Unicode composes their characters."""
    composed: dict[str, str] = {}
    for name in sorted(names):
        other = composed.setdefault(normalize("NFC", name), name)
        if other != name:
            raise TrainError(
                f"{root}: the folders {other!a} and {name!a} have the same name in two Unicode forms;"
                " rename one of them"
            )


def _load(root: Path) -> Index:
    try:
        return {folder: Listing(*listing) for folder, listing in cache.load("folder", root).items()}
    except (TypeError, AttributeError):
        return {}
