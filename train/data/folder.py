"""A folder tree of images, one sub-folder a class, as ImageNet is laid out."""

import hashlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from train.data import cache
from train.errors import TrainError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
SETTLED = 2.0
"""Seconds after which a directory's time of change surely differs from that of an older listing."""


class Listing(NamedTuple):
    """What one directory holds, and when it last changed (ns)."""

    changed: int
    folders: list[str]
    files: list[str]


Index = dict[str, Listing]
"""Directory relative to the root -> its listing."""


class Folder:
    """The images below a folder, sorted; the label is the first sub-folder on the way to a file.

    Images beside the class folders form a class of their own, so that a plain folder of
    unlabelled images can be pre-trained on.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if not root.is_dir():
            raise TrainError(f"{root}: no such folder")
        try:
            self.files = sorted(_files(_index(root)))
        except OSError as error:
            raise TrainError(f"{error.filename or root}: {error.strerror}") from None
        if not self.files:
            raise TrainError(f"{root}: no image below it ({', '.join(SUFFIXES)})")
        names = [os.path.dirname(file).split(os.sep)[0] or "." for file in self.files]
        self.classes = tuple(sorted(set(names)))
        ids = {name: label for label, name in enumerate(self.classes)}
        self.labels = [ids[name] for name in names]

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


def _files(index: Index) -> list[str]:
    return [os.path.join(folder, file) for folder, listing in index.items() for file in listing.files]


def _index(root: Path) -> Index:
    """Every listing below root; directories unchanged since the last run are not listed again.

    The root itself is always listed, so that an unreadable one is an error.
    """
    known = _load(root)
    index: Index = {}
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        state = os.stat(root / folder)
        if (state.st_dev, state.st_ino) in seen:  # a link back up the tree
            continue
        seen.add((state.st_dev, state.st_ino))
        listing = known.get(folder)
        if not folder or listing is None or listing.changed != state.st_mtime_ns:
            listing = _list(root / folder, state.st_mtime_ns)
        index[folder] = listing
        waiting += [os.path.join(folder, name) for name in listing.folders]
    if index != known:
        _store(root, index)
    return index


def _list(folder: Path, changed: int) -> Listing:
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.name.lower().endswith(SUFFIXES):
                files.append(entry.name)
    return Listing(changed, sorted(folders), sorted(files))


def _load(root: Path) -> Index:
    try:
        return {folder: Listing(*listing) for folder, listing in cache.load("folder", root).items()}
    except (TypeError, AttributeError):
        return {}


def _store(root: Path, index: Index) -> None:
    """Keep the listings of directories that are at rest."""
    recent = time.time_ns() - SETTLED * 1e9
    cache.store("folder", root, {folder: listing for folder, listing in index.items() if listing.changed < recent})
