"""Folders of transformers, of Orbax and of runs, with a part missing or changed."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import convert
from tests.convert.hostile.base import AUTOENCODER, CLASSIFIER, Cases
from tests.convert.samples import checkpoint, trained


def cases() -> Cases:
    def hf(folder: Path, change: Callable[[Path], Any]) -> Path:
        convert.save(checkpoint(CLASSIFIER), folder / "x", format="hf")
        change(folder / "x")
        return folder / "x"

    def index(path: Path, **files: str) -> None:
        (path / "model.safetensors").rename(path / "a.safetensors")
        (path / "b.safetensors").write_bytes((path / "a.safetensors").read_bytes())
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))

    def config(text: str) -> Callable[[Path], Any]:
        return lambda path: (path / "config.json").write_text(text)

    yield "a config that is no JSON", lambda f, b: hf(f, config("{"))
    yield "a config that is a list", lambda f, b: hf(f, config("[]"))
    yield "a config of another model", lambda f, b: hf(f, config('{"model_type": "bert"}'))
    yield "a config and nothing else", lambda f, b: hf(f, lambda path: (path / "model.safetensors").unlink())
    yield "an index to outside", lambda f, b: hf(f, lambda path: index(path, x="../a.safetensors"))
    yield "an index to nowhere", lambda f, b: hf(f, lambda path: index(path, x="c.safetensors"))
    yield "an index that is incomplete", lambda f, b: hf(f, lambda path: index(path))
    yield "the same arrays in two files", lambda f, b: hf(f, lambda p: index(p, x="a.safetensors", y="b.safetensors"))

    def run(folder: Path, change: Callable[[dict[str, Any]], Any], part: str = "") -> Path:
        path = folder / "x"
        convert.save(trained(AUTOENCODER), path)
        manifest = json.loads((path / "manifest.json").read_text())
        change(manifest)
        (path / "manifest.json").write_text(json.dumps(manifest))
        if part:
            (path / part).write_bytes((path / part).read_bytes()[:-1] + b"\x55")
        return path

    for key in ("version", "files", "meta", "t"):
        yield f"a manifest without {key}", lambda f, b, key=key: run(f, lambda m: m.pop(key))
    yield "a manifest of tomorrow", lambda f, b: run(f, lambda m: m.update(version=2))
    yield "a manifest of an outside file", lambda f, b: run(f, lambda m: m["files"].update({"../p": {}}))
    yield "a manifest without parameters", lambda f, b: run(f, lambda m: m["files"].pop("params.safetensors"))
    yield "a manifest without second moments", lambda f, b: run(f, lambda m: m["files"].pop("nu.safetensors"))
    yield "a manifest with t = -1", lambda f, b: run(f, lambda m: m.update(t=-1))
    yield "a manifest with t of text", lambda f, b: run(f, lambda m: m.update(t="many"))
    yield (
        "a manifest of another model",
        lambda f, b: run(f, lambda m: m["meta"]["identity"]["model"].update(decoder_dim=8)),
    )
    for part in ("params", "mu", "nu", "ema"):
        yield f"a flipped byte in {part}", lambda f, b, part=part: run(f, lambda m: None, f"{part}.safetensors")

    def emptied(folder: Path, name: str) -> Path:
        convert.save(checkpoint(CLASSIFIER), folder / "x.orbax", format="flax")
        (folder / "x.orbax" / name).write_bytes(b"")
        return folder / "x.orbax"

    for name in ("_METADATA", "manifest.ocdbt"):
        yield f"an Orbax folder with an empty {name}", partial(lambda f, b, name: emptied(f, name), name=name)
    yield "a run without checkpoints", lambda f, b: _made(f / "x" / "checkpoints", f / "x")
    yield "an empty folder", lambda f, b: _made(f / "x", f / "x")


def _made(folder: Path, path: Path) -> Path:
    folder.mkdir(parents=True)
    return path
