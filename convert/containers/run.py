"""A checkpoint of a run: step-XXXXXXXX/ with a manifest, and one file each of params, mu, nu and ema.

`train.checkpoints.store` writes the same layout. Every byte is checked against the manifest.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from convert import models
from convert.arrays import Arrays, Entries, entries_of
from convert.containers import safetensors
from convert.content import AdamW, Content
from convert.errors import ConvertError

VERSION = 1
MANIFEST = "manifest.json"
PARTS = ("params", "mu", "nu", "ema")


def read(path: Path, weights_only: bool = False) -> Content:
    """The checkpoint in a folder, or the newest of a run; ConvertError when its checksums do not hold."""
    path = _step_folder(path)
    manifest = json.loads((path / MANIFEST).read_text())
    if manifest.get("version") != VERSION:
        raise ConvertError(f"{path}: format version {manifest.get('version')!r}; this program reads {VERSION}")
    unknown = manifest["files"].keys() - {f"{part}.safetensors" for part in PARTS}
    if unknown or "params.safetensors" not in manifest["files"]:
        raise ConvertError(f"{path}: its manifest names {sorted(manifest['files'])}; expected params, mu, nu and ema")
    wanted = PARTS[:1] if weights_only else PARTS
    parts = dict.fromkeys(PARTS, Entries()) | {part: _part(path, part, manifest["files"]) for part in wanted}
    meta = dict(manifest["meta"])
    about, hyper = meta.get("identity", {}).get("model"), meta.get("optimizer")
    content = Content(parts["params"], parts["ema"], meta=meta, format="ours")
    content.model = models.build(about) if about else None
    if parts["mu"] or parts["nu"]:
        moments = Arrays(parts["mu"]), Arrays(parts["nu"])
        content.optimizer = AdamW(*moments, int(manifest["t"]), dict(hyper) if isinstance(hyper, dict) else {})
    return content


def write(path: Path, content: Content) -> None:
    """Write the checkpoint; its step is the number of AdamW's updates."""
    path.mkdir()
    parts: dict[str, Entries] = {"params": content.params, "ema": content.ema}
    t, meta = 0, dict(content.meta)
    if isinstance(content.optimizer, AdamW):
        parts |= {"mu": entries_of(content.optimizer.mu), "nu": entries_of(content.optimizer.nu)}
        t, meta["optimizer"] = content.optimizer.t, content.optimizer.hyper
    if content.model is not None:
        meta["identity"] = {**meta.get("identity", {}), "model": models.describe(content.model)}
    files: dict[str, Any] = {}
    for part in PARTS:
        if parts.get(part):
            file = path / f"{part}.safetensors"
            safetensors.write_arrays(file, parts[part], {"format": "pt"})
            files[file.name] = {"bytes": file.stat().st_size, "sha256": _sha256(file)}
    manifest = {"version": VERSION, "step": t, "t": t, "files": files, "meta": meta}
    (path / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _part(path: Path, part: str, files: dict[str, Any]) -> Entries:
    file = path / f"{part}.safetensors"
    if file.name not in files:
        return {}
    told = files[file.name]
    if not file.is_file() or file.stat().st_size != told["bytes"] or _sha256(file) != told["sha256"]:
        raise ConvertError(f"{file}: not the file that the manifest describes; take the checkpoint before it")
    return safetensors.headers(file)[0]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _step_folder(path: Path) -> Path:
    """The folder itself, or the newest checkpoint of the run in it."""
    if (path / MANIFEST).is_file():
        return path
    steps = [step for step in (path / "checkpoints").iterdir() if re.fullmatch(r"step-\d{8,}", step.name)]
    if not steps:
        raise ConvertError(f"{path}: a run without a checkpoint")
    return max(steps, key=lambda step: int(step.name.removeprefix("step-")))
