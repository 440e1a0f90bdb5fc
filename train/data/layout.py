"""How a data set lies on disk: which folder or shards are its training, validation and test parts."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from train.data.images import is_image, read_head
from train.data.kinds import STL10, companions, kind, without_copies
from train.data.names import counted
from train.errors import TrainError

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Part -> words for it, in the names of folders and shards."""

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

    Shards may lie in the folder, in its data/ or CONFIG/ (as the hub stores data sets), or in
    CONFIG/SPLIT/ (as the hub converts them). Raises TrainError if it can be read in two ways.
    """
    folders = _split_folders(root)
    others = [each for each in _folders(root) if each not in folders.values() and _has_image(each)] if folders else []
    if folders and not (others and root.name.lower() in WORDS):
        return _by_folders(root, folders, others)
    places = [each for each in (root, root / "data") if _shards(each)]
    if len(places) > 1:
        raise TrainError(
            f"{root}: has shards in it and in data/; give '{root}/*{kind(_shards(root)[0])}' or {places[1]}"
        )
    if places:
        return _by_names(root, places[0], _shards(places[0]))
    configs = {each: files for each in _folders(root) if (files := _config_shards(each))}
    if len(configs) > 1:
        raise TrainError(f"{root}: has several data sets; give one, such as {next(iter(configs))}")
    for config, files in configs.items():
        _refuse_mixed(root, config, files)
        return find(config)
    _refuse_named_parts(root)
    return Layout({"all": Part(str(root), root)})


def parts_in(names: Iterable[str]) -> dict[str, str]:
    """Part -> the name that says so, of names such as "train2017" and "img_val"; a later name wins."""
    return {WORDS[word]: name for name in names for word in _words(name) if word in WORDS}


def _words(name: str) -> list[str]:
    return re.split(r"[^a-z]+", name.lower())


def _refuse_named_parts(root: Path) -> None:
    """TrainError if each folder of images is named after a part, but not exactly."""
    folders = _folders(root)
    found = parts_in(each.name for each in folders)
    if len(found) > 1 and all(parts_in([each.name]) or not _has_image(each) for each in folders):
        names = [f"{name}/" for name in found.values()]
        first = next(iter(found))
        raise TrainError(
            f"{root}: {' and '.join(names)} look like parts of the data, not classes; rename them to"
            f" {' and '.join(f'{part}/' for part in found)}, or give one by its path, such as {root / found[first]}"
        )


def _config_shards(folder: Path) -> list[Path]:
    """Shards in a folder, or in the folders of its parts."""
    return _shards(folder) or [file for part in _split_folders(folder).values() for file in _shards(part)]


def _split_folders(root: Path) -> dict[str, Path]:
    """Part -> the folder of its name."""
    found: dict[str, Path] = {}
    for folder in _folders(root):
        split = WORDS.get(folder.name.lower())
        if split in found:
            raise TrainError(f"{root}: has {found[split].name}/ and {folder.name}/; rename or move one of them")
        if split:
            found[split] = folder
    return found


def _by_folders(root: Path, folders: dict[str, Path], others: list[Path]) -> Layout:
    """others: folders of images that are not named after a part."""
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
    if not files:
        return Part(str(folder), folder)
    _refuse_mixed(folder, folder, files)
    return Part(str(folder), shards=tuple(files))


def _by_names(root: Path, place: Path, files: list[Path]) -> Layout:
    """Shards by the words in their names; those without a word are for training where others have one."""
    _refuse_mixed(root, place, files)
    beside = sorted(str(each.relative_to(root)) for folder in {root, place} for each in folder.iterdir())
    used = (*files, place, *(each for file in files for each in companions(file)))
    unused = {*beside} - {str(each.relative_to(root)) for each in used}
    left_out = tuple(counted("other entry", "other entries", sorted(name for name in unused if name[0] != ".")))
    return Layout(_grouped(files), left_out)


def of_files(files: list[Path]) -> Layout:
    """The layout of shards that a pattern names: divided if their names tell several parts."""
    parts = _grouped(files)
    return Layout(parts if len(parts) > 1 else {"all": Part(str(files[0]), shards=tuple(files))})


def _grouped(files: list[Path]) -> dict[str, Part]:
    """The part of each name; "all" if no name tells one."""
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(_split_of(file), []).append(file)
    if set(found) == {""}:
        return {"all": Part(f"'{files[0].parent}/*{kind(files[0])}'", shards=tuple(files))}
    found["train"] = sorted([*found.pop("", []), *found.get("train", [])])
    return {split: Part(_pattern(split, each, files), shards=tuple(each)) for split, each in found.items() if each}


def _refuse_mixed(root: Path, place: Path, files: list[Path]) -> None:
    """TrainError if a folder has images beside its shards, or shards of two kinds."""
    kinds = sorted({kind(file) for file in files})
    if len(kinds) > 1:
        raise TrainError(f"{place}: has {' and '.join(kinds)} files; give one kind, such as '{place}/*{kinds[0]}'")
    if any(_has_image(each) for each in _folders(root) if each != place) or _holds_image(place):
        pattern = files[0].parent / f"*{kinds[0]}"
        raise TrainError(
            f"{root}: has both {kinds[0]} files and image files; give '{pattern}' to read the {kinds[0]} files,"
            " or move them away"
        )


def _pattern(split: str, files: list[Path], every: list[Path]) -> str:
    """A pattern that matches these files of all, or else the first file."""
    if len(files) == 1:
        return f"'{files[0]}'"
    pattern = f"*{split}*{kind(files[0])}"
    matches = [file for file in every if fnmatchcase(file.name, pattern)]
    return f"'{files[0].parent / pattern}'" if matches == files else f"such as {files[0]}"


def _split_of(file: Path) -> str:
    """The part that a shard's name tells, "" for none; TrainError if it tells two."""
    if file.name == f"unlabeled{STL10}":
        return "unlabeled"
    found = set(parts_in([file.stem.replace("t10k", "test")]))  # as MNIST calls it
    if len(found) > 1:
        raise TrainError(f"{file}: its name says {' and '.join(sorted(found))}; rename it, or give it by its path")
    return found.pop() if found else ""


def _shards(folder: Path) -> list[Path]:
    try:
        found = sorted(each for each in folder.iterdir() if kind(each) and each.is_file() and each.name[0] != ".")
        return without_copies(found)
    except OSError:
        return []


def _folders(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as entries:  # tells folders without a look at each file
            return sorted(Path(each.path) for each in entries if not each.name.startswith(".") and each.is_dir())
    except OSError as error:
        raise TrainError(f"{root}: {error.strerror}") from None


def _has_image(folder: Path) -> bool:
    """Whether there is an image below a folder; ends at the first."""
    return any(_holds_image(Path(each)) for each, _, _ in os.walk(folder))


def _holds_image(folder: Path) -> bool:
    """Whether there is an image in a folder itself."""
    with os.scandir(folder) as entries:
        visible = (entry for entry in entries if not entry.name.startswith(".") and entry.is_file())
        return any(is_image(entry.name, partial(read_head, entry.path)) for entry in visible)
