"""Intact files of invalid arrays, each in one container and one format."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.serialization
import flax.traverse_util
import numpy as np
import safetensors.numpy
import torch

from tests.convert.hostile.base import Cases, Named, named


def _torch(arrays: Named, path: Path) -> None:
    torch.save({"model": {name: torch.from_numpy(array) for name, array in arrays.items()}}, path)


def _flax(arrays: Named, path: Path) -> None:
    path.write_bytes(flax.serialization.msgpack_serialize(flax.traverse_util.unflatten_dict(arrays, sep=".")))


def _transformers(arrays: Named, path: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "convnextv2"}))
    safetensors.numpy.save_file(arrays, path / "model.safetensors")


WRITERS: dict[str, tuple[str, Callable[[Named, Path], Any]]] = {
    "x.pth": ("official-sparse", _torch),
    "x.pt": ("mmpretrain", _torch),
    "x.safetensors": ("timm", safetensors.numpy.save_file),
    "x.npz": ("official-dense", lambda arrays, path: np.savez(path, **arrays)),
    "x.msgpack": ("flax", _flax),
    "x": ("hf", _transformers),
}


def _first(arrays: Named, rank: int) -> str:
    return next(name for name, array in arrays.items() if array.squeeze().ndim == rank and len(set(array.shape)) > 1)


def _without(arrays: Named, *names: str) -> Named:
    return {name: array for name, array in arrays.items() if name not in names}


def _with(arrays: Named, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Named:
    return {**arrays, name: change(arrays[name])}


def _renamed(arrays: Named, name: str, new: str) -> Named:
    return {new if one == name else one: array for one, array in arrays.items()}


def _spoilt(value: float) -> Callable[[Named], Named]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array.flat[array.size // 2] = value
        return array

    return lambda arrays: _with(arrays, _first(arrays, 2), change)


def _typed(dtype: Any) -> Callable[[Named], Named]:
    return lambda arrays: _with(arrays, list(arrays)[-1], lambda array: array.astype(dtype))


CHANGES: dict[str, Callable[[Named], Named]] = {
    "first array missing": lambda a: _without(a, next(iter(a))),
    "last array missing": lambda a: _without(a, list(a)[-1]),
    "a bias missing": lambda a: _without(a, next(name for name in a if name.endswith("bias"))),
    "a middle array missing": lambda a: _without(a, list(a)[len(a) // 2]),
    "only one array": lambda a: {_first(a, 2): a[_first(a, 2)]},
    "a stage missing": lambda a: {name: array for name, array in a.items() if "stages.0." not in name},
    "a first block missing": lambda a: {
        n: array for n, array in a.items() if not re.search(r"es\.1\.([a-z]+\.)?0\.", n)
    },
    "an extra array": lambda a: {**a, "extra.weight": np.zeros(3, np.float32)},
    "an extra array inside": lambda a: {**a, list(a)[-1].rpartition(".")[0] + ".more": np.zeros(3, np.float32)},
    "a mistyped name": lambda a: _renamed(a, _first(a, 2), _first(a, 2)[:-1]),
    "a leading zero": lambda a: _renamed(a, _first(a, 4), re.sub(r"\d", r"0\g<0>", _first(a, 4), count=1)),
    "an absurd number": lambda a: {**a, "stages.999999999999999999999999.0.norm.weight": np.zeros(8, np.float32)},
    "half of it wrapped": lambda a: {(f"module.{n}" if i % 2 else n): array for i, (n, array) in enumerate(a.items())},
    "a transposed matrix": lambda a: _with(a, _first(a, 2), lambda array: np.ascontiguousarray(array.squeeze().T)),
    "a flattened matrix": lambda a: _with(a, _first(a, 2), lambda array: array.reshape(-1)),
    "one row more": lambda a: _with(a, _first(a, 2), lambda array: np.repeat(array, 2, 0)),
    "a vector too long": lambda a: _with(a, list(a)[-1], lambda array: np.repeat(array, 2)),
    "a scalar": lambda a: _with(a, list(a)[-1], lambda array: np.zeros((), np.float32)),
    "an empty array": lambda a: _with(a, list(a)[-1], lambda array: np.zeros((0,), np.float32)),
    "NaN": _spoilt(np.nan),
    "infinity": _spoilt(np.inf),
    "minus infinity": _spoilt(-np.inf),
    "int64": _typed(np.int64),
    "int32": _typed(np.int32),
    "uint8": _typed(np.uint8),
    "bool": _typed(np.bool_),
    "nothing at all": lambda a: {},
}


def cases() -> Cases:
    for name, (format, write) in WRITERS.items():
        for what, change in CHANGES.items():

            def make(folder: Path, bait: Path, name=name, format=format, write=write, change=change) -> Path:
                write(change(named(format)), folder / name)
                return folder / name

            yield f"{format} in {name}: {what}", make
