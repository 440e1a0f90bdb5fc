"""Listings of data sets, kept in the user's cache: on a network disk a million files take minutes to list."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def load(kind: str, root: Path) -> Any:
    """What was last stored for the data at `root`, as JSON knows it, or None."""
    try:
        return json.loads(_file(kind, root).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def store(kind: str, root: Path, value: Any) -> None:
    """Keep a value for the data at `root`; without a writable cache, keep nothing."""
    file = _file(kind, root)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(value), encoding="utf-8")
        aside.replace(file)
    except OSError:
        return


def _file(kind: str, root: Path) -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "twinnext" / f"{kind}-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]}.json"
