"""Write files and folders that appear whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from convert.errors import ConvertError

SPARE = 2**20
"""Bytes for what a library writes beside arrays."""

ASIDE, DOOMED = ".writing-", ".deleting-"
"""What the names of unfinished writes and deletions begin with."""


@contextlib.contextmanager
def replacing(path: Path, force: bool) -> Iterator[Path]:
    """`atomic` for a path that a user named; ConvertError if something is there and force is not given, or it fails."""
    if path.exists() and not force:
        raise ConvertError(f"{path}: exists already; --force replaces it, -o names another output")
    if path.is_dir() and not any((path / name).exists() for name in ("manifest.json", "config.json", "_METADATA")):
        raise ConvertError(f"{path}: a folder that is not a checkpoint is not replaced, even with --force")
    try:
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
