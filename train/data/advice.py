"""What to do with data in a form that is not read here."""

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from train.data.kinds import kind


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


def elsewhere(root: Path) -> Iterator[str]:
    """Why a folder without images may be no mistake of the user's: what else is in it, and how to read it."""
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(folder, name)
            yield from filter(None, [_foreign(path)])
            if kind(path):
                yield f"there are {kind(path)} files in {path.parent}; give that folder"


def compressed(path: Path) -> str | None:
    """What to do with a compressed tar; None for other names."""
    found = next((each for each in COMPRESSIONS if path.name.endswith((f".tar{each.suffix}", each.short))), None)
    if found is None:
        return None
    return f"{path}: compressed, so its images cannot be read at random; uncompress it: {found.tool} {quote(str(path))}"


def labels(path: Path) -> str | None:
    """What to do with an IDX file of labels; None for other names."""
    if not fnmatchcase(path.name, "*labels?idx*"):
        return None
    return f"{path}: holds labels; give the file of images instead, its labels are found beside it"


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
