"""Write files and folders that appear whole or not at all."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from convert.errors import ConvertError

SPARE = 2**20  # bytes for what a library writes beside arrays

ASIDE, DOOMED = ".writing-", ".deleting-"
"""What the names of unfinished writes and deletions begin with."""


class Written(NamedTuple):
    """What this program writes to a folder: its description, keys of which it has one, an array file, all names."""

    description: str
    keys: tuple[str, ...]
    arrays: str
    names: str


FOLDERS = (
    Written("manifest.json", ("files",), "params.safetensors", r"manifest\.json|(params|mu|nu|ema)\.safetensors"),
    Written(
        "config.json",
        ("model_type", "architecture"),
        "model.safetensors",
        r"config\.json|model\.safetensors|preprocessor_config\.json|README\.md",
    ),
    Written(
        "_METADATA",
        ("tree_metadata",),
        "manifest.ocdbt",
        r"_METADATA|_CHECKPOINT_METADATA|_sharding|commit_success\.txt|manifest\.ocdbt|d|array_metadatas|ocdbt\.process_\d+",
    ),
)
"""The folders of the formats ours, of transformers and timm, and of Orbax."""


@contextlib.contextmanager
def replacing(path: Path, force: bool) -> Iterator[Path]:
    """`atomic` for a path that a user named; ConvertError if something is there and force is not given, or it fails."""
    if path.exists() and not force:
        raise ConvertError(f"{path}: exists already; --force replaces it, -o names another output")
    try:
        if path.is_dir() and not _is_checkpoint(path):
            raise ConvertError(
                f"{path}: a folder that is not a checkpoint, or holds other things, is not replaced, even with --force;"
                " name another output"
            )
        with atomic(path) as aside:
            yield aside
    except OSError as error:
        raise ConvertError(f"{path}: not written: {error.strerror or error}") from error


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path to write a file or folder to; it replaces `path` once it is complete and on the disk.

    It lies in a hidden folder beside `path`, on the same disk. After an error that folder is removed,
    with whatever a library has left in it, and `path` is as before. Passes OSError on.
    """
    scratch = Path(tempfile.mkdtemp(prefix=f"{ASIDE}{path.name}.", dir=path.parent))
    try:
        new = scratch / path.name
        yield new
        for written in (*new.rglob("*"), new):
            sync(written)
        _exchange(new, path, scratch / "old")
        sync(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def reserve(folder: Path, size: int) -> None:
    """Raise OSError now if the disk has no room for `size` bytes: some libraries that write fail noisily later."""
    if hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=folder) as ballast:
            os.posix_fallocate(ballast.fileno(), 0, max(size, 1))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; OSError when it cannot be written, and then `path` is as before."""
    with atomic(path) as aside:
        aside.write_text(text, encoding="utf-8")


def discard(folder: Path) -> None:
    """Delete a folder, renamed first, so that a half deleted one is never read."""
    doomed = folder.with_name(f"{DOOMED}{folder.name}")
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left of writes and deletions; only where no other process writes."""
    for leftover in (*folder.glob(f"{ASIDE}*"), *folder.glob(f"{DOOMED}*")):
        shutil.rmtree(leftover, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; not every system can sync a folder."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint as this program writes it, and nothing else."""
    names = {child.name for child in folder.iterdir()}
    return any(
        {kind.description, kind.arrays} <= names
        and all(re.fullmatch(kind.names, name) for name in names)
        and not set(kind.keys).isdisjoint(_keys(folder / kind.description))
        for kind in FOLDERS
    )


def _keys(file: Path) -> set[str]:
    """The keys of a JSON object in a file; none if there is no such object."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return set()
    return set(found) if isinstance(found, dict) else set()


def _exchange(new: Path, path: Path, old: Path) -> None:
    """Rename new to path; a folder there, which a rename cannot replace, becomes old."""
    if not path.is_dir():
        new.replace(path)
        return
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
