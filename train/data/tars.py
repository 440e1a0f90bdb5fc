"""WebDataset shards: tar files of key.jpg and key.cls pairs, read at random by their offsets."""

import hashlib
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from train.data import cache
from train.data.decode import BrokenImage
from train.data.folder import SUFFIXES
from train.errors import TrainError

LABEL = ".cls"
UNLABELLED = "."
NUMBERS = 10**6
"""Labels below are class numbers; greater ones are somebody's names for classes."""


class Member(NamedTuple):
    """An image in a shard: its key, where its bytes lie, and what its .cls file says (None without one)."""

    key: str
    offset: int
    size: int
    label: str | None


class Tars:
    """The images of some shards, in the order of the shards' names and of the members in each.

    Labels are the numbers in the .cls files, or names, which are then numbered in sorted
    order. Without any .cls file all images are of one class, which pre-training can use.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = sorted(shards)
        members = [_members(shard) for shard in self.shards]
        found = [member for each in members for member in each]
        if not found:
            raise TrainError(f"{self.shards[0]}: no image in it or the shards beside it ({', '.join(SUFFIXES)})")
        self.homes = np.repeat(np.arange(len(members)), [len(each) for each in members])
        self.keys = [member.key for member in found]
        self.offsets = np.array([member.offset for member in found])
        self.sizes = np.array([member.size for member in found])
        self.classes, self.labels = _numbered([member.label for member in found], self)

    @property
    def fingerprint(self) -> str:
        listed = "\n".join(f"{key} {size}" for key, size in zip(self.keys, self.sizes.tolist(), strict=True))
        return hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[bytes, int, str]:
        offset, size = int(self.offsets[index]), int(self.sizes[index])
        with self.shards[self.homes[index]].open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise BrokenImage(f"{self.name(index)}: the shard ends inside it")
        return data, self.labels[index], self.name(index)

    def name(self, index: int) -> str:
        """Shard and key of an image."""
        return f"{self.shards[self.homes[index]]}: {self.keys[index]}"


def _members(shard: Path) -> list[Member]:
    """The images of a shard; a shard unchanged since the last run is not read again."""
    try:
        state = shard.stat()
        stamp = [state.st_size, state.st_mtime_ns]
        members = _known(shard, stamp)
        if members is None:
            members = list(_scan(shard))
            cache.store("tar", shard, {"stamp": stamp, "members": members})
    except OSError as error:
        raise TrainError(f"{shard}: {error.strerror or error}") from None
    except (tarfile.TarError, UnicodeDecodeError) as error:
        raise TrainError(f"{shard}: not an uncompressed tar of images and labels, or damaged ({error})") from None
    return members


def _known(shard: Path, stamp: list[int]) -> list[Member] | None:
    try:
        stored = cache.load("tar", shard)
        return [Member(*member) for member in stored["members"]] if stored["stamp"] == stamp else None
    except (TypeError, KeyError):
        return None


def _scan(shard: Path) -> Iterator[Member]:
    """The members of a tar that are images, each with the label of its key."""
    images: list[tuple[str, str, int, int]] = []
    labels: dict[str, str] = {}
    with tarfile.open(shard, "r:") as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if not member.isfile() or path.name.startswith("."):
                continue
            key = str(path.with_name(path.name.split(".")[0]))
            if path.suffix == LABEL:
                content = archive.extractfile(member)
                labels[key] = content.read().decode().strip() if content else ""
            elif path.suffix.lower() in SUFFIXES:
                images.append((key, member.name, member.offset_data, member.size))
    for key, name, offset, size in images:
        yield Member(name, offset, size, labels.get(key))


def _numbered(texts: Sequence[str | None], source: Tars) -> tuple[tuple[str, ...], list[int]]:
    """The classes and every image's label."""
    names = set(texts)
    if names == {None}:
        return (UNLABELLED,), [0] * len(texts)
    if None in names:
        raise TrainError(f"{source.name(texts.index(None))}: has no {LABEL} file, other images have")
    known = {name for name in names if name is not None}
    if all(name.isdecimal() and int(name) < NUMBERS for name in known):
        classes = tuple(str(number) for number in range(max(map(int, known)) + 1))
        return classes, [int(text or 0) for text in texts]
    classes = tuple(sorted(known))
    ids: dict[str | None, int] = {name: label for label, name in enumerate(classes)}
    return classes, [ids[text] for text in texts]
