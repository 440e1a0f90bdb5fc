"""The checkpoint folders of a run: named arrays and a manifest, the same for both frameworks.

    step-00000840/
        manifest.json        version, step, each file's size and sha256, meta
        params.safetensors   canonical name -> array, as are mu, nu and (where kept) ema

A checkpoint is written under a temporary name, synced and renamed, so a folder with this name is
complete. It is read only if every checksum matches.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from backends.protocol import Arrays, State
from train.errors import TrainError

VERSION = 1
MANIFEST = "manifest.json"
PARTS = ("params", "mu", "nu", "ema")
TEMPORARY, DELETED = ".writing-", ".deleting-"


class Damaged(TrainError):
    """A checkpoint differs from its manifest: in which file, and how."""


@dataclass(frozen=True)
class Checkpoint:
    """A state, the number of updates it took, and the metadata of the run."""

    path: Path
    step: int
    state: State
    meta: dict[str, Any]


def save(root: Path, step: int, state: State, meta: Mapping[str, Any], keep: int) -> Path:
    """Write root/step-XXXXXXXX, delete all but the newest `keep` checkpoints, and return its path.

    TrainError if the state is not finite or cannot be written, for instance on a full disk; older
    checkpoints are then unchanged and nothing of the new one remains.
    """
    path = path_of(root, step)
    _refuse_broken(path, state)
    try:
        _write_all(root, path, step, state, meta)
        before = [old for number, old in _steps(root) if number < step]
        for old in before[keep - 1 :]:
            _retire(old)
    except OSError as error:
        raise TrainError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        _sweep(root)
    return path


def _write_all(root: Path, path: Path, step: int, state: State, meta: Mapping[str, Any]) -> None:
    """Write a checkpoint under a temporary name; rename it once it is complete and synced."""
    temporary = root / f"{TEMPORARY}{path.name}"
    _sweep(root)
    temporary.mkdir(parents=True)
    files = {f"{part}.safetensors": _write(temporary / f"{part}.safetensors", arrays) for part, arrays in _parts(state)}
    manifest = {"version": VERSION, "step": step, "t": state.t, "files": files, "meta": meta}
    _sync(temporary / MANIFEST, json.dumps(manifest, indent=1).encode())
    _sync_folder(temporary)
    if path.exists():
        _retire(path)
    temporary.rename(path)
    _sync_folder(root)
    _sync_folder(root.parent)


def path_of(root: Path, step: int) -> Path:
    """The folder of the checkpoint of an update."""
    return root / f"step-{step:08d}"


def latest(root: Path) -> Path | None:
    """The folder of the newest checkpoint below root, unread."""
    return next((path for _, path in _steps(root)), None)


def newest(root: Path, report: Callable[[str], None]) -> Checkpoint | None:
    """The newest intact checkpoint below root; reports a line for each damaged one. Damaged if none is intact."""
    _sweep(root)
    steps = _steps(root)
    for _, path in steps:
        try:
            return read(path)
        except Damaged as error:
            report(f"{error}; falling back to the previous checkpoint")
    if steps:
        raise Damaged(f"{root}: no checkpoint is intact; start again in another --output_dir")
    return None


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; Damaged if any byte differs from its manifest."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        version, step, t, files, meta = (manifest[key] for key in ("version", "step", "t", "files", "meta"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path}: no readable {MANIFEST} ({type(error).__name__})") from None
    if version != VERSION:
        raise Damaged(f"{path}: format version {version}, this program reads {VERSION}")
    arrays = {part: _read(path / name, files[name]) for part in PARTS if (name := f"{part}.safetensors") in files}
    return Checkpoint(path, step, State(**arrays, t=t), meta)


def _refuse_broken(path: Path, state: State) -> None:
    """TrainError if the state holds NaN or inf."""
    for part, arrays in _parts(state):
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise TrainError(f"{path}: not written: {part} {name} is not finite")


def _sweep(root: Path) -> None:
    """Remove folders that are half written or half deleted."""
    for leftover in (*root.glob(f"{TEMPORARY}*"), *root.glob(f"{DELETED}*")):
        shutil.rmtree(leftover, ignore_errors=True)


def _parts(state: State) -> list[tuple[str, Arrays]]:
    return [(part, arrays) for part in PARTS if (arrays := getattr(state, part))]


def _write(file: Path, arrays: Arrays) -> dict[str, Any]:
    """Write one file of arrays; return its size and checksum.

    safetensors 0.8.0 silently stores the memory of a transposed view in the wrong order, and
    converted arrays are such views: everything is made contiguous here.
    """
    data = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    _sync(file, data)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _read(file: Path, entry: Mapping[str, Any]) -> Arrays:
    try:
        data = file.read_bytes()
        if len(data) != entry["bytes"]:
            raise Damaged(f"{file}: {len(data):,} bytes, the manifest says {entry['bytes']:,}")
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise Damaged(f"{file}: its checksum is not the manifest's")
        return safetensors.numpy.load(data)
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise Damaged(f"{file}: cannot be read ({type(error).__name__}: {error})") from None


def _steps(root: Path) -> list[tuple[int, Path]]:
    """(step, path) of every folder named as a checkpoint, newest first."""
    if not root.is_dir():
        return []
    named = ((re.fullmatch(r"step-(\d{8,})", path.name), path) for path in root.iterdir())
    return sorted(((int(match[1]), path) for match, path in named if match), reverse=True)


def _retire(path: Path) -> None:
    """Rename a checkpoint for deletion, so that a half-deleted one is never read."""
    path.rename(path.with_name(f"{DELETED}{path.name}"))


def _sync(file: Path, data: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """Sync the names in a folder, if the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
