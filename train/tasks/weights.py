"""The initial parameters of a classifier: drawn, or read from a checkpoint of any format."""

from dataclasses import replace
from typing import Any

import numpy as np

import convert
import spec
from backends.initial import initial_arrays
from backends.protocol import Arrays
from convert import Checkpoint, ConvertError
from train.errors import TrainError

PREFIX = "encoder."


def first_arrays(model: spec.Classifier, seed: int, head_scale: float, path: str) -> Arrays:
    """The parameters that fine-tuning starts from: the encoder of a checkpoint (path, "" for none) and a new head.

    The last norm is the checkpoint's if it has one. The head is always re-drawn, and scaled by
    head_scale, as published.
    """
    arrays = initial_arrays(model, seed)
    for name in ("head.weight", "head.bias"):
        arrays[name] *= np.float32(head_scale)
    if path:
        checkpoint = load(path)
        _check_encoder(path, checkpoint.model.encoder, model.encoder)
        theirs = {name.removeprefix(PREFIX): name for name in checkpoint.arrays}
        taken = [name for name in arrays if name in theirs and not name.startswith("head.")]
        arrays |= {name: read(path, checkpoint, theirs[name]) for name in taken}
    return arrays


def classifier(path: str) -> tuple[spec.Classifier, Arrays, Arrays, dict[str, Any]]:
    """The model in a checkpoint, its parameters, their EMA ({} if there is none), and its metadata."""
    checkpoint = load(path)
    if not isinstance(checkpoint.model, spec.Classifier) or not checkpoint.model.num_classes:
        raise TrainError(
            f"--finetune {path}: has no classification head; train one with --task finetune --finetune {path}"
        )
    names = spec.parameters(checkpoint.model)
    arrays = {name: read(path, checkpoint, name) for name in names}
    ema = {name: np.asarray(checkpoint.ema[name], np.float32) for name in names if checkpoint.ema}
    return checkpoint.model, arrays, ema, checkpoint.meta


def load(path: str) -> Checkpoint:
    """Open a checkpoint; arrays are read later. TrainError if it cannot be opened."""
    try:
        return convert.load(path)
    except ConvertError as error:
        raise TrainError(f"--finetune {error}") from None


def read(path: str, checkpoint: Checkpoint, name: str) -> np.ndarray:
    """Read one of its arrays as float32."""
    try:
        return np.asarray(checkpoint.arrays[name]).astype(np.float32)
    except ConvertError as error:
        raise TrainError(f"--finetune {path}: {error}") from None


def _check_encoder(path: str, theirs: spec.Encoder, own: spec.Encoder) -> None:
    """TrainError, with the flags that match, unless both encoders have the same arrays."""
    if replace(theirs, drop_path=own.drop_path, grn_scope=own.grn_scope) == own:
        return
    size = {"depths": theirs.depths, "dims": theirs.dims}
    preset = next((name for name, known in spec.PRESETS.items() if known == size), None)
    words = [f"--{name} {' '.join(map(str, value))}" for name, value in size.items()]
    flags = [f"--model {preset}"] if preset else ["--model none", *words]
    flags += [f"--in_chans {theirs.in_chans}"] if theirs.in_chans != own.in_chans else []
    flags += [f"--patch_size {theirs.patch_size}"] if theirs.patch_size != own.patch_size else []
    raise TrainError(f"--finetune {path}: its encoder has another size; give {' '.join(flags)}")
