"""The initial parameters of a classifier: drawn, or read from a checkpoint of any format."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import convert
import spec
from backends.initial import initial_arrays
from backends.protocol import Arrays
from convert import Checkpoint, ConvertError, surgery
from spec import checks
from train.config import Config
from train.errors import TrainError, of_convert

PREFIX = "encoder."


def first_arrays(model: spec.Classifier, seed: int, head_scale: float, path: str) -> Arrays:
    """The parameters that fine-tuning starts from: the encoder of a checkpoint (path, "" for none) and a new head.

    The last norm is the checkpoint's if it has one. The head is always re-drawn, and scaled by
    head_scale, as published. A stem for another number of channels is inflated (`surgery.with_channels`).
    """
    arrays = initial_arrays(model, seed)
    for name in ("head.weight", "head.bias"):
        arrays[name] *= np.float32(head_scale)
    if path:
        checkpoint = inflated(load(path), model.encoder.in_chans)
        _check_encoder(path, checkpoint.model, model.encoder)
        theirs = {name.removeprefix(PREFIX): name for name in checkpoint.arrays}
        taken = [name for name in arrays if name in theirs and not name.startswith("head.")]
        arrays |= {name: read(path, checkpoint, theirs[name]) for name in taken}
    return arrays


def inflated(checkpoint: Checkpoint, channels: int) -> Checkpoint:
    """The checkpoint, or its encoder with a stem for another number of channels."""
    if checkpoint.model.encoder.in_chans == channels:
        return checkpoint
    if isinstance(checkpoint.model, spec.FCMAE):
        checkpoint = surgery.encoder_only(checkpoint)
    return surgery.with_channels(checkpoint, channels)


def classifier(path: str, with_ema: bool) -> tuple[spec.Classifier, Arrays, Arrays, dict[str, Any]]:
    """The model in a checkpoint, its parameters, with_ema their EMA ({} if there is none), and its metadata."""
    checkpoint = load(path, weights_only=not with_ema)
    if not isinstance(checkpoint.model, spec.Classifier) or not checkpoint.model.num_classes:
        raise TrainError(f"{path}: has no classification head; train one with --task finetune --finetune {path}")
    names = spec.parameters(checkpoint.model)
    arrays = {name: read(path, checkpoint, name) for name in names}
    ema = {name: np.asarray(checkpoint.ema[name], np.float32) for name in names if checkpoint.ema}
    return checkpoint.model, arrays, ema, checkpoint.meta


def path_of(config: Config) -> str:
    """The checkpoint that a task uses without training it; TrainError unless one is given."""
    finetune, resume = config.finetune.finetune, config.checkpoints.resume
    if finetune and resume:
        raise TrainError(f"--task {config.run.task}: give the checkpoint with --finetune or with --resume, not both")
    if not finetune and not resume:
        raise TrainError(f"--task {config.run.task}: give the checkpoint with --finetune or --resume")
    return finetune or resume


def load(path: str, weights_only: bool = True) -> Checkpoint:
    """Open a checkpoint; arrays are read later. TrainError if it cannot be opened."""
    try:
        return convert.load(path, weights_only=weights_only)
    except ConvertError as error:
        raise TrainError(of_convert(path, error)) from None


def read(path: str, checkpoint: Checkpoint, name: str) -> np.ndarray:
    """Read one of its arrays as float32."""
    try:
        return np.asarray(checkpoint.arrays[name]).astype(np.float32)
    except ConvertError as error:
        raise TrainError(f"{path}: {error}") from None


def check_flags(config: Config, path: str, model: spec.Model) -> None:
    """SpecError or TrainError unless the flags that were given fit the encoder in a checkpoint."""
    encoder, asked = model.encoder, config.model
    check_channels(path, model, asked.in_chans)
    sizes: Mapping[str, Any] = spec.PRESETS.get(asked.model or "", {}) if "model" in config.given else {}
    own = {"depths": asked.depths, "dims": asked.dims, "patch_size": asked.patch_size}
    expected = {**sizes, **{name: value for name, value in own.items() if name in config.given and value}}
    known = asked.model is None or asked.model in spec.PRESETS
    if not known or any(getattr(encoder, name) != value for name, value in expected.items()):
        raise TrainError(f"{path}: its encoder has another size; give {_flags_of(encoder)}, or no size")
    checks.image_size(config.data.image_size, encoder.patch_size)


def check_channels(path: str, model: spec.Model, channels: int) -> None:
    """TrainError unless the model in a checkpoint takes images of this number of channels."""
    theirs = model.encoder.in_chans
    if channels != theirs:
        more = " --encoder-only" if isinstance(model, spec.FCMAE) else ""
        raise TrainError(
            f"--in_chans {channels}: the model in {path} takes {theirs}; leave it out, or change the model:"
            f" twinnext convert translate {path} --to ours --in-chans {channels}{more} -o NEW"
        )


def _check_encoder(path: str, model: spec.Model, own: spec.Encoder) -> None:
    """TrainError, with the flags that match, unless both encoders have the same arrays."""
    theirs = model.encoder
    if replace(theirs, drop_path=own.drop_path, grn_scope=own.grn_scope) != own:
        raise TrainError(f"{path}: its encoder has another size; give {_flags_of(theirs)}")


def _flags_of(encoder: spec.Encoder) -> str:
    """The flags that describe the size of an encoder."""
    size = {"depths": encoder.depths, "dims": encoder.dims}
    preset = next((name for name, known in spec.PRESETS.items() if known == size), None)
    words = [f"--{name} {' '.join(map(str, value))}" for name, value in size.items()]
    named = f"--model {preset}" if preset else " ".join(["--model none", *words])
    return f"{named} --patch_size {encoder.patch_size}"
