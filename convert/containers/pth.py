"""torch's .pth: a pickle in a zip. Only torch's safe loader reads it, and it loads no data.

Under FakeTensorMode the loader returns shapes, strides and the position of every storage in the file;
values are read later, by position. Nothing but tensors, containers, argparse.Namespace and
pathlib.PosixPath is unpickled: a file that asks for more is refused, and the message lists what it asks for.
"""

import argparse
import contextlib
import math
import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from convert import plain
from convert.arrays import DTYPES, Arrays, Entries, Entry, entries_of, raw_bytes, span
from convert.containers import header
from convert.content import AdamWState, Content
from convert.errors import ConvertError, listed
from convert.files import SPARE, reserve


class NumpyDtype:
    """Stands for numpy.dtype in a pickle: takes the code of a number, and nothing else."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not re.fullmatch(r"[biuf][1248]", code):
            raise pickle.UnpicklingError(f"a numpy scalar of dtype {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(">" if state[1] == ">" else "<")


def numpy_scalar(dtype: NumpyDtype, data: Any = b"") -> int | float | bool:
    """Stands for numpy's function that makes a scalar of a pickle: the value as Python's own number."""
    raw = data if isinstance(data, bytes) else str(data).encode("latin1")
    number: int | float | bool = np.frombuffer(raw, dtype.dtype, 1)[0].item()
    return number


SAFE: list[Any] = [
    argparse.Namespace,
    pathlib.PosixPath,
    (NumpyDtype, "numpy.dtype"),
    (numpy_scalar, "numpy.core.multiarray.scalar"),
    (numpy_scalar, "numpy._core.multiarray.scalar"),
]
"""What may be unpickled beside tensors and containers. Of numpy, nothing runs: our own code reads its scalars."""

OLDEST = (2, 10)
"""Before it, weights_only could be made to run code (CVE-2025-32434) or to corrupt memory (CVE-2026-24747)."""

PICKLE = 2**26  # bytes, a thousand times what a state dict needs without its tensors

PARAMS, EMA = ("model", "state_dict", "model_state_dict", "module"), ("model_ema", "state_dict_ema")
META = ("epoch", "scaler", "args", "classes")
NO_ARRAYS = {"n_averaged": "how many models torch's AveragedModel averaged", "config": "settings, as SparK keeps them"}
UNREAD = ("optimizer_state_dict", "optimizer_states", "ema")
OF_BSP36 = {"model_state_dict", "optimizer_state_dict", "scheduler_state_dict", "epoch"}
STEM_OF_BSP36 = r"(encoder|backbone)\.downsample_layers\.0\.0\.weight"
"""The keys of BSP36/fcmae's files and the name of an array: most of their names are the published ones."""

MOMENTS = ("exp_avg", "exp_avg_sq")
WRAPPER = {
    **dict.fromkeys(("timm", "hf", "dinov3", "dinov3-hf"), ""),
    **dict.fromkeys(("mmpretrain", "viscy", "viscy-3d"), "state_dict"),
    "spark": "module",
    "bsp36": "model_state_dict",
}
"""Format -> the key under which its programs expect the parameters; "model" for all others."""


def read(path: Path, weights_only: bool = False, key: str | None = None) -> Content:
    """The arrays of a file; ConvertError when it is damaged, or would run code.

    key: where its parameters are; by default under one of PARAMS, or at the top.
    """
    loaded = _load(path)
    if not isinstance(loaded, dict):
        raise ConvertError(f"{path}: holds a {type(loaded).__name__}, not a state dict")
    params = _params(path, loaded, key)
    aside = [name for name in NO_ARRAYS if name in params and not _holds_arrays(params[name])]
    params = {name: one for name, one in params.items() if name not in aside}
    notes = [f"left out: {name}, {NO_ARRAYS[name]}" for name in aside]
    content = Content(
        _entries(path, params), notes=notes, meta=plain.fields(loaded, META) | _dataset_meta(loaded.get("meta"))
    )
    if loaded.keys() >= OF_BSP36 and any(re.fullmatch(STEM_OF_BSP36, name) for name in content.params):
        content.format = "bsp36"
    if isinstance(loaded.get(header.KEY), dict):
        content.model, content.format = header.parsed(plain.value(loaded[header.KEY]))
    if weights_only:
        return content
    notes += [f"left out: {name}, which is not read" for name in UNREAD if loaded.get(name)]
    content.ema = next((_entries(path, loaded[key]) for key in EMA if isinstance(loaded.get(key), dict)), {})
    if isinstance(loaded.get("optimizer"), dict):
        content.optimizer = _optimizer(path, loaded["optimizer"])
        if content.optimizer is None:
            content.notes.append("left out: an optimizer that has made no step, or is not AdamW")
    return content


def write(path: Path, content: Content) -> None:
    """Write parameters, and what else the format's programs read; torch.save needs all of it in memory at once."""
    params = {name: _tensor(entry) for name, entry in content.params.items()}
    key = WRAPPER.get(content.format or "", "model")
    whole: dict[str, Any] = {key: params, **plain.fields(content.meta, META)} if key else params
    if not key:
        content.leave_classes(f"a .pth in the {content.format} format is a bare state dict")
    if content.format == "mmpretrain" and content.classes:
        whole["meta"] = {"dataset_meta": {"classes": content.classes}}
    if key:
        whole[header.KEY] = {name: one for name, one in header.fields(content).items() if name != "meta"}
    if content.ema:
        whole["model_ema"] = {name: _tensor(entry) for name, entry in content.ema.items()}
    if content.optimizer is not None:
        whole["optimizer"] = _state_dict(content.optimizer)
    reserve(path.parent, content.nbytes + SPARE)
    try:
        torch.save(whole, path)
    except RuntimeError as error:  # how torch reports that its file could not be written
        raise OSError(str(error)) from error


def _dataset_meta(meta: Any) -> dict[str, Any]:
    """The names of the classes where mmpretrain keeps them."""
    known = meta.get("dataset_meta") if isinstance(meta, dict) else None
    return {"classes": plain.value(known["classes"])} if isinstance(known, dict) and known.get("classes") else {}


def _load(path: Path) -> Any:
    """The file's objects, with tensors that have shapes but no values."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST:
        raise ConvertError(f"{path}: torch {torch.__version__} reads .pth unsafely; pip install 'torch>=2.10'")
    in_zip = zipfile.is_zipfile(path)
    if in_zip:
        _check_zip(path)
        allowed = {one[1] if isinstance(one, tuple) else f"{one.__module__}.{one.__qualname__}" for one in SAFE}
        _refuse(path, set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - allowed)
    # Before torch 1.6 there was no zip, hence no random access: such a file is read at once.
    lazily = FakeTensorMode() if in_zip else contextlib.nullcontext()
    with torch.serialization.safe_globals(SAFE), warnings.catch_warnings(action="ignore"), lazily:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # its text advises to load unsafely: not repeated here
            _refuse(path, re.findall(r"GLOBAL (\S+)", str(error)))
            raise ConvertError(f"{path}: its pickle is damaged, or of a kind that torch does not write") from error


def _refuse(path: Path, wanted: Collection[str]) -> None:
    if wanted:
        raise ConvertError(
            f"{path}: would run {listed(sorted(wanted))}; only tensors, containers, numbers, argparse.Namespace and"
            " pathlib.PosixPath are read; ask its author for a .safetensors file"
        )


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise ConvertError(
                f"{path}: a TorchScript program, which is never run here; where you trust it:"
                " torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
            )
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ConvertError(f"{path}: {member.filename} is compressed, which torch never does")
            if member.filename.endswith("data.pkl") and member.file_size > PICKLE:
                raise ConvertError(f"{path}: a pickle of {member.file_size} bytes; no state dict needs {PICKLE}")


def _params(path: Path, loaded: dict[Any, Any], key: str | None) -> dict[Any, Any]:
    """The state dict of the parameters: under the key that was given, one of the usual keys, or at the top."""
    if key is None:
        return next((loaded[usual] for usual in PARAMS if isinstance(loaded.get(usual), dict)), loaded)
    if not isinstance(loaded.get(key), dict):
        offered = listed(map(repr, _keys(loaded))) or "no key"
        raise ConvertError(f"{path}: no state dict under {key!r}; there is one under {offered}")
    found: dict[Any, Any] = loaded[key]
    return found


def _keys(loaded: dict[Any, Any]) -> list[Any]:
    """The keys under which there are tensors."""
    return [key for key, one in loaded.items() if isinstance(one, dict) and _tensors(one)]


def _holds_arrays(one: Any) -> bool:
    """Whether it is parameters, or a dict of them: not a number, nor settings."""
    return _tensors(one) if isinstance(one, dict) else isinstance(one, torch.Tensor) and one.ndim > 0


def _tensors(one: dict[Any, Any]) -> bool:
    return any(isinstance(tensor, torch.Tensor) for tensor in one.values())


def _entries(path: Path, tensors: dict[Any, Any]) -> Entries:
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            remedy = f"parameters are looked for under {' and '.join(map(repr, PARAMS))}, or at the top"
            if keys := _keys(tensors):
                remedy = f"there are tensors under {listed(map(repr, keys))}: choose with --key {keys[0]}"
            raise ConvertError(f"{path}: {name!r} is a {type(tensor).__name__}, not a tensor; {remedy}")
    return {str(name): _entry(path, str(name), tensor) for name, tensor in tensors.items()}


def _entry(path: Path, name: str, tensor: torch.Tensor) -> Entry:
    """A tensor by its shape and strides; strides that repeat values or leave the file are refused."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ConvertError(f"{path}: {name} is a {tensor.layout} tensor; only plain ones are read")
    dtype = _dtype(path, name, tensor.dtype)
    shape, strides = tuple(tensor.shape), tuple(tensor.stride())
    count, storage = math.prod(shape), tensor.untyped_storage()
    extent = 1 + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True)) if count else 0
    held = storage.nbytes() // dtype.itemsize - tensor.storage_offset()
    if extent > held or extent < count:
        raise ConvertError(f"{path}: {name} claims {dtype}{shape}, but has {max(held, 0)} values")
    start = getattr(storage, "_checkpoint_offset", None)
    if start is None:
        return Entry(shape, dtype, lambda: _values(tensor, dtype))
    flat = span(path, start + tensor.storage_offset() * dtype.itemsize, (extent,), dtype)
    steps = [stride * dtype.itemsize for stride in strides]
    return flat.then(lambda values: np.lib.stride_tricks.as_strided(values, shape, steps), shape)


def _dtype(path: Path, name: str, dtype: torch.dtype) -> np.dtype:
    known = str(dtype).removeprefix("torch.")
    try:
        return DTYPES.get(known) or np.dtype(known)
    except TypeError as error:
        raise ConvertError(f"{path}: {name} is {known}; expected one of {', '.join(DTYPES)}") from error


def _values(tensor: torch.Tensor, dtype: np.dtype) -> np.ndarray:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().view(dtype).reshape(tuple(tensor.shape))


def _tensor(entry: Entry) -> torch.Tensor:
    raw = raw_bytes(entry)
    raw = raw if raw.flags.writeable else raw.copy()
    return torch.from_numpy(raw).view(getattr(torch, entry.dtype.name)).reshape(entry.shape)


def _optimizer(path: Path, state_dict: dict[str, Any]) -> AdamWState | None:
    """The moments by index; None when no step was made, or the state is not Adam's."""
    state, groups = state_dict.get("state"), state_dict.get("param_groups")
    if not isinstance(state, dict) or not isinstance(groups, list):
        raise ConvertError(f"{path}: its optimizer has no state and param_groups, as torch's have")
    if not state or not all(isinstance(one, dict) and {"step", *MOMENTS} <= one.keys() for one in state.values()):
        return None
    mu, nu = (
        Arrays({str(i): _entry(path, f"{key} of parameter {i}", one[key]) for i, one in state.items()})
        for key in MOMENTS
    )
    steps = {_number(path, one["step"]) for one in state.values()}
    if len(steps) != 1:
        counts = listed(map(str, sorted(steps)))
        raise ConvertError(f"{path}: its optimizer's parameters have made different numbers of updates: {counts}")
    return AdamWState(mu, nu, steps.pop(), {"groups": plain.value(groups)})


def _number(path: Path, step: Any) -> int:
    return int(_entry(path, "step", step).read()) if isinstance(step, torch.Tensor) else int(step)


def _state_dict(optimizer: AdamWState) -> dict[str, Any]:
    """The state dict that torch.optim.AdamW.load_state_dict takes."""
    mu, nu = entries_of(optimizer.mu), entries_of(optimizer.nu)
    state = {
        int(name): {
            "step": torch.tensor(float(optimizer.t)),
            **{key: _tensor(moment[name]) for key, moment in zip(MOMENTS, (mu, nu), strict=True)},
        }
        for name in mu
    }
    return {"state": state, "param_groups": optimizer.hyper["groups"]}
