"""Checkpoints of a run: a folder of named arrays and a manifest, the same for both frameworks.

    step-00000840/
        manifest.json        version, step, t, each file's size and sha256, meta
        params.safetensors   canonical name -> array; so are mu, nu and, where one is kept, ema

This module is the only reader and writer of the format. A checkpoint appears whole or not at all;
each file is checked against the manifest before it is used.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backends.protocol import State
from convert import models
from convert.arrays import Arrays, Entries, entries_of, entry_checked, entry_of
from convert.containers import safetensors
from convert.content import AdamWState, Content
from convert.errors import ConvertError
from convert.files import atomic, sync

VERSION = 1
MANIFEST = "manifest.json"
PARTS = ("params", "mu", "nu", "ema")
FOLDER = "checkpoints"  # the folder of a run in which its checkpoints lie


class Damaged(ConvertError):
    """A checkpoint that cannot be trusted: which file, and how it differs from its manifest."""


@dataclass(frozen=True)
class RunCheckpoint:
    """A training state, the number of updates it took, and what the run recorded about itself."""

    path: Path
    step: int
    state: State
    meta: dict[str, Any]


class Manifest(NamedTuple):
    """What manifest.json says, of a version that this program reads."""

    step: int
    t: int
    files: dict[str, dict[str, Any]]
    meta: dict[str, Any]


def save(path: Path, step: int, state: State, meta: Mapping[str, Any]) -> None:
    """Write a checkpoint to the folder `path`, atomically; a checkpoint there is replaced.

    ConvertError when a value is NaN or infinite, OSError when the disk refuses; nothing is left then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as aside:
        _write(aside, step, state.t, {part: _entries(part, getattr(state, part)) for part in PARTS}, meta)
    sync(path.parent.parent)  # path.parent may be new


def load(path: Path) -> RunCheckpoint:
    """The checkpoint in a folder, once every byte agrees with its manifest; Damaged otherwise."""
    manifest = _manifest(path)
    parts = {part: _arrays(path, part, manifest) for part in PARTS}
    params, mu, nu, ema = ({name: entry.read() for name, entry in parts[part].items()} for part in PARTS)
    return RunCheckpoint(path, manifest.step, State(params, mu, nu, ema, manifest.t), manifest.meta)


def name_of(step: int) -> str:
    """The name of a checkpoint's folder: "step-00000840"."""
    return f"step-{step:08d}"


def steps(root: Path) -> list[tuple[int, Path]]:
    """(step, path) of each checkpoint in the folder `root`, newest first, unread."""
    if not root.is_dir():
        return []
    named = ((re.fullmatch(r"step-(\d{8,})", path.name), path) for path in root.iterdir())
    return sorted(((int(match[1]), path) for match, path in named if match), reverse=True)


def read(path: Path, weights_only: bool = False) -> Content:
    """The checkpoint in a folder, or the newest of a run; ConvertError when its checksums do not hold."""
    path = _newest(path)
    manifest = _manifest(path)
    wanted = PARTS[:1] if weights_only else PARTS
    parts = {part: _arrays(path, part, manifest) if part in wanted else {} for part in PARTS}
    meta = manifest.meta
    about, hyper = meta.get("identity", {}).get("model"), meta.get("optimizer")
    content = Content(parts["params"], parts["ema"], meta=meta, format="ours")
    content.model = models.build(about) if about else None
    if parts["mu"] or parts["nu"]:
        moments = Arrays(parts["mu"]), Arrays(parts["nu"])
        content.optimizer = AdamWState(*moments, manifest.t, dict(hyper) if isinstance(hyper, dict) else {})
    return content


def write(path: Path, content: Content) -> None:
    """Write the checkpoint; its step is the number of AdamW's updates."""
    parts: dict[str, Entries] = {"params": content.params, "ema": content.ema}
    t, meta = 0, dict(content.meta)
    if content.optimizer is not None:
        parts |= {"mu": entries_of(content.optimizer.mu), "nu": entries_of(content.optimizer.nu)}
        t, meta["optimizer"] = content.optimizer.t, content.optimizer.hyper
    if content.model is not None:
        meta["identity"] = {**meta.get("identity", {}), "model": models.describe(content.model)}
    _write(path, t, t, parts, meta)


def _write(path: Path, step: int, t: int, parts: Mapping[str, Entries], meta: Mapping[str, Any]) -> None:
    path.mkdir()
    files = {
        f"{part}.safetensors": safetensors.write_arrays(path / f"{part}.safetensors", parts[part], {"format": "pt"})
        for part in PARTS
        if parts.get(part)
    }
    manifest = {"version": VERSION, "step": step, "t": t, "files": files, "meta": meta}
    (path / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _entries(part: str, arrays: Mapping[str, np.ndarray]) -> Entries:
    return {name: entry_checked(f"{part} {name}", entry_of(array)) for name, array in arrays.items()}


def _manifest(path: Path) -> Manifest:
    try:
        found = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version, files, meta = found["version"], dict(found["files"]), dict(found["meta"])
        manifest = Manifest(int(found["step"]), int(found["t"]), files, meta)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path}: no readable {MANIFEST} ({type(error).__name__})") from error
    if version != VERSION:
        raise Damaged(f"{path}: format version {version!r}, this program reads {VERSION}")
    if "params.safetensors" not in files or files.keys() - {f"{part}.safetensors" for part in PARTS}:
        raise Damaged(f"{path}: its manifest lists {sorted(files)}; expected params, mu, nu and ema")
    return manifest


def _arrays(path: Path, part: str, manifest: Manifest) -> Entries:
    """The arrays of one part, by their headers, once its file's checksum is the manifest's."""
    file = path / f"{part}.safetensors"
    if file.name not in manifest.files:
        return {}
    expected = manifest.files[file.name]
    try:
        with file.open("rb") as stream:
            size, digest = file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise Damaged(f"{file}: cannot be read ({error.strerror or error})") from error
    if size != expected["bytes"]:
        raise Damaged(f"{file}: {size:,} bytes, the manifest says {expected['bytes']:,}")
    if digest != expected["sha256"]:
        raise Damaged(f"{file}: its checksum is not the manifest's; take the checkpoint before it")
    return safetensors.headers(file)[0]


def _newest(path: Path) -> Path:
    """The newest checkpoint of the run in a folder, or else the folder itself."""
    if not (path / FOLDER).is_dir():
        return path
    found = steps(path / FOLDER)
    if not found and not (path / MANIFEST).is_file():
        raise ConvertError(f"{path}: a run without a checkpoint")
    return found[0][1] if found else path
