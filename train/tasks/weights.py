"""The initial parameters of a model: drawn, or read from a checkpoint of any format."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

import convert
import spec
from backends.initial import initial_arrays
from backends.protocol import Arrays
from convert import Checkpoint, ConvertError, surgery
from convert.arrays import Arrays as Stored
from convert.arrays import entries_of
from spec import checks
from train.config import Config
from train.errors import TrainError, of_convert

PREFIX = "encoder."
HEADS = (f"{PREFIX}norm.", f"{PREFIX}head.")


def first_arrays(
    model: spec.Classifier | spec.Backbone, seed: int, path: str, say: Callable[[str], None] = print
) -> Arrays:
    """The parameters that fine-tuning starts from: the encoder of a checkpoint (path, "" for none) and a new head.

    The last norm is the checkpoint's if it has one. The head is always re-drawn, as published.
    A stem of other channels is changed as `convert.surgery` does, which is said.
    """
    arrays = initial_arrays(model, seed)
    if path:
        checkpoint = _channels_changed(path, model.encoder.in_chans, say)
        _check_encoder(path, checkpoint.model, model.encoder)
        theirs = {name.removeprefix(PREFIX): name for name in checkpoint.arrays}
        taken = [name for name in arrays if name in theirs and not name.startswith("head.")]
        arrays |= {name: read(path, checkpoint, theirs[name]) for name in taken}
    return arrays


@contextmanager
def given_by(words: str) -> Iterator[None]:
    """Put the flag that gave a checkpoint, or its path and a colon, before the message of a TrainError."""
    try:
        yield
    except TrainError as error:
        raise TrainError(f"{words} {error}") from None


def _channels_changed(path: str, channels: int, say: Callable[[str], None]) -> Checkpoint:
    """A checkpoint; with the stem of `surgery.with_channels` if it has other channels, and else as it is."""
    checkpoint = load(path)
    if checkpoint.model.encoder.in_chans == channels:
        return checkpoint
    changed = surgery.with_channels(surgery.encoder_only(checkpoint), channels)
    say(f"{path}: {changed.notes[-1]}")
    stem = PREFIX * isinstance(checkpoint.model, spec.FCMAE) + surgery.STEM
    entries = {**entries_of(checkpoint.arrays), stem: entries_of(changed.arrays)[surgery.STEM]}
    model = replace(checkpoint.model, encoder=changed.model.encoder)
    return replace(checkpoint, model=model, arrays=Stored(entries))


def transferred(model: spec.FCMAE, seed: int, path: str, scope: str, say: Callable[[str], None]) -> Arrays:
    """The parameters that pre-training starts from: what fits of a checkpoint's, the rest initialised.

    scope: "encoder", or "everything" of a checkpoint that has a decoder. A stem of other channels is changed as
    `convert.surgery` does. Says what is taken and what not; TrainError if the encoders differ.
    """
    arrays, checkpoint = initial_arrays(model, seed), _channels_changed(path, model.encoder.in_chans, say)
    _check_encoder(path, checkpoint.model, model.encoder)
    prefix = "" if isinstance(checkpoint.model, spec.FCMAE) else PREFIX
    theirs = {prefix + name: entry.shape for name, entry in entries_of(checkpoint.arrays).items()}
    scoped = [name for name in arrays if scope == "everything" or name.startswith(PREFIX)]
    taken = [name for name in scoped if theirs.get(name) == arrays[name].shape]
    arrays |= {name: read(path, checkpoint, name.removeprefix(prefix)) for name in taken}
    drawn, left = ([name for name in names if name not in taken] for names in (arrays, theirs))
    say(f"from {path}: {_parts(taken)}; initialised: {_parts(drawn)}; not taken: {_parts(left)}")
    return arrays


def _parts(names: Sequence[str]) -> str:
    """Parts of a model and their arrays, e.g. "encoder (120 arrays), proj (2)"."""
    bare = (name.removeprefix(PREFIX) if name.startswith(HEADS) else name for name in names)
    counts = Counter(name.partition(".")[0] for name in bare)
    return ", ".join(f"{part} ({count})" for part, count in counts.items()) or "nothing"


def classifier(path: str, with_ema: bool) -> tuple[spec.Classifier, Arrays, Arrays, dict[str, Any]]:
    """The model in a checkpoint, its parameters, with_ema their EMA ({} if there is none), and its metadata."""
    checkpoint = load(path, weights_only=not with_ema)
    if not isinstance(checkpoint.model, spec.Classifier) or not checkpoint.model.num_classes:
        raise TrainError(f"{path}: has no classification head; train one with --task finetune --finetune {path}")
    names = spec.parameters(checkpoint.model)
    arrays = {name: read(path, checkpoint, name) for name in names}
    ema = {name: np.asarray(checkpoint.ema[name], np.float32) for name in names if checkpoint.ema}
    return checkpoint.model, arrays, ema, checkpoint.meta


def autoencoder(config: Config, path: str) -> tuple[spec.FCMAE, Arrays]:
    """The autoencoder in a checkpoint, for --input_size and --mask_ratio, and its parameters.

    A file may not say how its model was trained: --norm_pix_loss and --grn_scope override it, if they are given.
    """
    checkpoint = load(path)
    theirs = checkpoint.model
    if not isinstance(theirs, spec.FCMAE):
        raise TrainError(
            f"{path}: has no decoder, so it cannot reconstruct; pre-train one, or give a pre-training"
            " checkpoint (released ones are often encoders only)"
        )
    check_flags(config, path, theirs)
    patch = theirs.encoder.patch_size
    height, width = config.data.image_size
    ratio, rounding = config.model.mask_ratio, config.model.mask_rounding
    scope = config.model.grn_scope if "grn_scope" in config.given else theirs.encoder.grn_scope
    normalised = config.model.norm_pix_loss if "norm_pix_loss" in config.given else theirs.norm_target
    model = replace(
        theirs,
        encoder=with_grn_scope(theirs.encoder, scope),
        image_size=(height, width),
        mask_ratio=checks.mask_ratio(ratio, (height // patch, width // patch), rounding),
        mask_rounding=rounding,
        norm_target=normalised,
    )
    return model, {name: read(path, checkpoint, name) for name in spec.parameters(model)}


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
    own = {name: value for name, value in asked.encoder.items() if name in config.given and name != "grn_scope"}
    expected = {**sizes, **own}
    known = asked.model is None or asked.model in spec.PRESETS
    if not known or any(getattr(encoder, name) != value for name, value in expected.items()):
        raise TrainError(f"{path}: its encoder differs; give {_flags_of(encoder)}, or no flags of the model")
    checks.image_size(config.data.image_size, encoder.patch_size)


def with_grn_scope(encoder: spec.Encoder, scope: str) -> spec.Encoder:
    """The encoder with another scope of GRN; SpecError if it has none to apply it to."""
    return replace(encoder, grn_scope=checks.grn_scope(scope, encoder.block))


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
        raise TrainError(f"{path}: its encoder differs; give {_flags_of(theirs)}")


def _flags_of(encoder: spec.Encoder) -> str:
    """The flags that describe the size of an encoder."""
    depths, dims = (" ".join(map(str, value)) for value in (encoder.depths, encoder.dims))
    other = "none" if encoder.block == "v2" else "convnext_tiny"
    named = f"--model {encoder.preset}" if encoder.preset else f"--model {other} --depths {depths} --dims {dims}"
    eps = f" --norm_eps {encoder.norm_eps:g}" if encoder.norm_eps != spec.EPS else ""
    bias = "" if encoder.dwconv_bias else " --dwconv_bias False"
    return f"{named} --patch_size {encoder.patch_size}{eps}{bias}"
