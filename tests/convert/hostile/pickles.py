"""Pickles that want to run something, and would touch the bait if they could."""

import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.convert.hostile.base import Cases, named


class Attack:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def _calls(bait: Path) -> dict[str, Attack]:
    touch = f"open({str(bait)!r}, 'w')"
    return {
        "os.system": Attack(os.system, f"touch {bait}"),
        "eval": Attack(eval, touch),
        "exec": Attack(exec, touch),
        "open": Attack(open, str(bait), "w"),
        "os.mkdir": Attack(os.mkdir, str(bait)),
        "getattr": Attack(getattr, str, "upper"),
        "Path.touch": Attack(Path.touch, bait),
        "pickle.loads": Attack(pickle.loads, pickle.dumps(Attack(eval, touch))),
        "torch.load": Attack(torch.load, str(bait)),
        "numpy.fromfile": Attack(np.fromfile, str(bait)),
    }


def cases() -> Cases:
    def make(folder: Path, bait: Path, name: str, place: str, in_zip: bool) -> Path:
        model = {n: torch.from_numpy(array) for n, array in named("official-sparse").items()}
        attack = _calls(bait)[name]
        content = {
            "a value": {"model": model, "args": attack},
            "a tensor": {"model": {**model, "mask_token": attack}},
            "all": attack,
        }[place]
        torch.save(content, folder / "x.pth", _use_new_zipfile_serialization=in_zip)
        return folder / "x.pth"

    for name in _calls(Path("bait")):
        for place in ("a value", "a tensor", "all"):
            for in_zip in (True, False):
                title = f"{name} as {place} of a {'zip' if in_zip else 'bare pickle'}"
                yield title, partial(make, name=name, place=place, in_zip=in_zip)
    yield "a bare pickle that no torch wrote", _bare_pickle
    yield "pickled objects in npz", _object_arrays


def _bare_pickle(folder: Path, bait: Path) -> Path:
    (folder / "x.pkl").write_bytes(pickle.dumps(Attack(os.system, f"touch {bait}")))
    return folder / "x.pkl"


def _object_arrays(folder: Path, bait: Path) -> Path:
    arrays = {**named("official-dense"), "head.bias": np.array([Attack(os.system, f"touch {bait}")] * 3, dtype=object)}
    np.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"
