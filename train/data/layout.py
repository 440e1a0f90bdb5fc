"""How a data set lies on disk: which folder or shards are its training, validation and test parts."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from train.data.images import SUFFIXES
from train.errors import TrainError

SHARDS = (".tar", ".parquet", ".npz")

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Part -> words for it, in the names of folders and shards."""


class Compression(NamedTuple):
    """A way to compress a tar, and the tool that undoes it."""

    suffix: str
    short: str
    magic: bytes
    tool: str


COMPRESSIONS = (
    Compression(".gz", ".tgz", b"\x1f\x8b", "gunzip"),
    Compression(".bz2", ".tbz2", b"BZh", "bunzip2"),
    Compression(".xz", ".txz", b"\xfd7zXZ\0", "unxz"),
    Compression(".zst", ".tzst", b"\x28\xb5\x2f\xfd", "unzstd"),
)

WORDS = {word: split for split, words in SPLITS.items() for word in words}


@dataclass(frozen=True)
class Part:
    """A folder of images, or the shards of one kind in a folder. pattern: names it on a command line."""

    pattern: str
    folder: Path | None = None
    shards: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Layout:
    """The parts of a data set; one part "all" if it is not divided. left_out: what is in none of them."""

    parts: dict[str, Part]
    left_out: tuple[str, ...] = ()

    @property
    def divided(self) -> bool:
        return "all" not in self.parts


def find(root: Path) -> Layout:
    """The layout of a folder: divided by sub-folders, by the names of shards, or not at all.

    Shards may lie in the folder, in its data/ (as the hub stores data sets), or in CONFIG/SPLIT/
    (as the hub converts them). Raises TrainError if it can be read in two ways.
    """
    folders = _split_folders(root)
    if folders:
        return _by_folders(root, folders)
    place = next((each for each in (root, root / "data") if _shards(each)), None)
    if place is not None:
        return _by_names(root, place, _shards(place))
    configs = [each for each in _folders(root) if any(_shards(part) for part in _split_folders(each).values())]
    if len(configs) > 1:
        raise TrainError(f"{root}: has several data sets; give one, such as {configs[0]}")
    return find(configs[0]) if configs else Layout({"all": Part(str(root), root)})


def _split_folders(root: Path) -> dict[str, Path]:
    """Part -> its folder; none in a folder that is itself one, where they are classes."""
    found: dict[str, Path] = {}
    for folder in _folders(root) if root.name.lower() not in WORDS else []:
        split = WORDS.get(folder.name.lower())
        if split in found:
            raise TrainError(f"{root}: has {found[split].name}/ and {folder.name}/; rename or move one of them")
        if split:
            found[split] = folder
    return found


def _by_folders(root: Path, folders: dict[str, Path]) -> Layout:
    others = [each for each in _folders(root) if each not in folders.values() and _has_image(each)]
    if others and len(folders) == 1:
        (only,) = folders.values()
        raise TrainError(
            f"{root}: {only.name}/ may be a part of the data or a class beside {others[0].name}/;"
            f" give {only}, or move all classes into {root / 'train'}"
        )
    parts = {split: _part(folder) for split, folder in folders.items()}
    return Layout(parts, (*(f"{each.name}/" for each in others), *(file.name for file in _shards(root))))


def _part(folder: Path) -> Part:
    """A folder as a whole."""
    files = _shards(folder)
    return Part(str(folder), shards=_one_kind(folder, files)) if files else Part(str(folder), folder)


def _by_names(root: Path, place: Path, files: list[Path]) -> Layout:
    """Shards by the words in their names; those without a word are for training where others have one."""
    kind = files[0].suffix
    if any(_has_image(each) for each in _folders(root) if each != place) or _holds_image(root) or _holds_image(place):
        raise TrainError(
            f"{root}: has both {kind} files and image files; give '{place}/*{kind}' to read the {kind} files,"
            " or move them away"
        )
    _one_kind(place, files)
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(_split_of(file), []).append(file)
    if set(found) == {""}:
        return Layout({"all": Part(f"'{place}/*{kind}'", shards=tuple(files))})
    found["train"] = sorted([*found.pop("", []), *found.get("train", [])])
    parts = {split: Part(_pattern(split, each, files), shards=tuple(each)) for split, each in found.items() if each}
    return Layout(parts)


def _pattern(split: str, files: list[Path], every: list[Path]) -> str:
    """A pattern that matches these files of all, or else the first file."""
    pattern = f"*{split}*{files[0].suffix}"
    matches = [file for file in every if fnmatchcase(file.name, pattern)]
    return f"'{files[0].parent / pattern}'" if matches == files else f"such as {files[0]}"


def _one_kind(place: Path, files: list[Path]) -> tuple[Path, ...]:
    kinds = sorted({file.suffix for file in files})
    if len(kinds) > 1:
        raise TrainError(f"{place}: has {' and '.join(kinds)} files; give one kind, such as '{place}/*{kinds[0]}'")
    return tuple(files)


def _split_of(file: Path) -> str:
    """The part that a shard's name tells, "" for none; TrainError if it tells two."""
    found = {WORDS[word] for word in re.split(r"[^a-z]+", file.stem.lower()) if word in WORDS}
    if len(found) > 1:
        raise TrainError(f"{file}: its name says {' and '.join(sorted(found))}; rename it, or give it by its path")
    return found.pop() if found else ""


def _shards(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.suffix in SHARDS and not each.name.startswith("."))
    except OSError:
        return []


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(each for each in root.iterdir() if not each.name.startswith(".") and each.is_dir())
    except OSError as error:
        raise TrainError(f"{root}: {error.strerror}") from None


def _has_image(folder: Path) -> bool:
    """Whether there is an image file below a folder; ends at the first."""
    return any(name.lower().endswith(SUFFIXES) for _, _, names in os.walk(folder, followlinks=True) for name in names)


def _holds_image(folder: Path) -> bool:
    """Whether there is an image file in a folder itself."""
    return any(entry.name.lower().endswith(SUFFIXES) for entry in os.scandir(folder))


def advice(root: Path) -> Iterator[str]:
    """Why a folder without images may be no mistake of the user's: what else is in it, and how to read it."""
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(folder, name)
            yield from filter(None, [_foreign(path)])
            if path.suffix in SHARDS:
                yield f"there are {path.suffix} files in {path.parent}; give that folder"


def compressed(path: Path) -> str | None:
    """What to do with a compressed tar; None for other names."""
    found = next((each for each in COMPRESSIONS if path.name.endswith((f".tar{each.suffix}", each.short))), None)
    if found is None:
        return None
    return f"{path}: compressed, so its images cannot be read at random; uncompress it: {found.tool} {quote(str(path))}"


def misnamed(path: Path) -> str | None:
    """What to do with a compressed file that is called .tar; None for other files."""
    with path.open("rb") as file:
        head = file.read(8)
    found = next((each for each in COMPRESSIONS if head.startswith(each.magic)), None)
    if found is None:
        return None
    old, new = quote(str(path)), quote(f"{path}{found.suffix}")
    return f"{path}: compressed; uncompress it: mv {old} {new} && {found.tool} {new}"


def _foreign(path: Path) -> str | None:
    if path.name in ("dataset_dict.json", "state.json"):
        load = f"datasets.load_from_disk({str(path.parent)!r})"
        part = "['train']" if path.name == "dataset_dict.json" else ""
        return f"{path.parent} was written by save_to_disk; write parquet with {load}{part}.to_parquet('train.parquet')"
    if path.suffix == ".zip":
        return f"{path.name} is an archive; unpack it with python -m zipfile -e {path} {path.parent}"
    return compressed(path)
