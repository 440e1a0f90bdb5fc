"""Files and folders that appear whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from convert.errors import ConvertError


@contextlib.contextmanager
def whole_or_nothing(path: Path, force: bool) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` at the end, or is removed after an error.

    ConvertError if something stands there and force is not given, or if it cannot be written.
    """
    if path.exists() and not force:
        raise ConvertError(f"{path}: already there; --force replaces it, -o names another")
    if path.is_dir() and not any((path / name).exists() for name in ("manifest.json", "config.json", "_METADATA")):
        raise ConvertError(f"{path}: a folder that is no checkpoint; it is not replaced, even with --force")
    aside, old = (path.with_name(f".{path.name}.{os.getpid()}.{role}") for role in ("new", "old"))
    try:
        yield aside
        for written in (*aside.rglob("*"), aside):
            _sync(written)
        if path.is_dir():
            path.rename(old)
        aside.replace(path)
        _sync(path.parent)
        _remove(old)
    except OSError as error:
        raise ConvertError(f"{path}: not written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # what went wrong before is what the user must hear
            _remove(aside)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; not every system can sync a folder."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
