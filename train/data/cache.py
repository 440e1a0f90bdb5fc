"""Listings of data sets, kept in the user's cache: listing a million files on a network disk takes minutes.

A listing is used again only if the file or folder is provably unchanged. Times alone do not
prove it: object-store mounts, squashfs and container image layers report constant ones.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from convert.files import write_text

TRUSTED = frozenset(
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "nfs", "nfs4", "lustre", "gpfs", "ceph", "beegfs"]
)
"""File systems that set the time of change (ctime) at every change, and let nobody else set it."""

VERSION = 2
"""Raised whenever other files than before count as images."""

SETTLED = 2.0
"""Seconds after which a change surely gives another ctime."""

MOUNTS = Path("/proc/self/mountinfo")


def stamp(state: os.stat_result) -> list[int] | None:
    """What changes whenever a file or folder does; None where nothing proves that it has not changed.

    A ctime without a fraction of a second is made up, and one of just now may be repeated.
    """
    if _file_systems().get(state.st_dev) not in TRUSTED or not state.st_ctime_ns % 10**9:
        return None
    if state.st_ctime_ns > time.time_ns() - SETTLED * 1e9:
        return None
    return [state.st_dev, state.st_ino, state.st_size, state.st_nlink, state.st_mtime_ns, state.st_ctime_ns]


@lru_cache(maxsize=1)
def _file_systems() -> dict[int, str]:
    """Device number -> type of its file system; empty where the kernel does not tell."""
    try:
        lines = MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    found = {}
    for before, _, after in (line.partition(" - ") for line in lines):
        major, minor = before.split()[2].split(":")
        found[os.makedev(int(major), int(minor))] = after.split()[0]
    return found


def load(kind: str, path: Path) -> Any:
    """The value last stored for `path`, as JSON gives it, or None."""
    try:
        return json.loads(_file(kind, path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def store(kind: str, path: Path, value: Any) -> None:
    """Store a JSON value for `path`; does nothing without a writable cache."""
    file = _file(kind, path)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(value))


def _file(kind: str, path: Path) -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    return home / "twinnext" / f"{kind}-{VERSION}-{name}.json"
