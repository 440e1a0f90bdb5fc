"""Changes on request: use the EMA, keep the encoder only, change the stem's channels, the head or the dtype.

Each function takes a checkpoint, returns another, and adds a note of what it did. Parameters and EMA
change alike; moments belong to the model as it was trained, and are left out.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

import spec
from backends.initial import initial_arrays
from convert.arrays import DTYPES, Arrays, Entries, entries_of, entry_checked, entry_of
from convert.checkpoint import Checkpoint
from convert.errors import ConvertError
from convert.rules import bare
from spec import FCMAE, Backbone, Classifier, Model

STEM = "downsample_layers.0.0.weight"


def use_ema(checkpoint: Checkpoint) -> Checkpoint:
    """The EMA instead of the parameters."""
    if not checkpoint.ema:
        raise ConvertError("--ema: the checkpoint has no EMA")
    line = "the EMA instead of the parameters; optimizer left out"
    return replace(checkpoint, arrays=checkpoint.ema, ema={}, optimizer=None, notes=[*checkpoint.notes, line])


def encoder_only(checkpoint: Checkpoint) -> Checkpoint:
    """The encoder alone, without decoder, norms of outputs, and head."""
    model = Backbone(checkpoint.model.encoder)
    table = spec.parameters(model)

    def encoder(entries: Entries) -> Entries:
        return {bare(path): entry for path, entry in entries.items() if bare(path) in table}

    left = {path.split(".")[0]: None for path in checkpoint.arrays if bare(path) not in table}
    return _changed(checkpoint, model, encoder, f"encoder only: left out {', '.join(left) or 'nothing'}")


def with_channels(checkpoint: Checkpoint, channels: int) -> Checkpoint:
    """A stem for another number of image channels.

    An image whose channels repeat cyclically to the larger number has the same features as the
    original image: kernels of merged channels are summed, those of repeated channels are divided.
    """
    encoder, before = checkpoint.model.encoder, checkpoint.model.encoder.in_chans
    if isinstance(checkpoint.model, FCMAE):
        raise ConvertError(f"--in-chans: the decoder predicts pixels of {before} channels; add --encoder-only")
    if channels < 1:
        raise ConvertError(f"--in-chans: {channels} is not a number of channels")
    home = np.arange(max(before, channels)) % min(before, channels)

    def change(weight: np.ndarray) -> np.ndarray:
        exact = weight.astype(np.float64)
        if channels > before:
            return (exact / np.bincount(home)[:, None, None])[:, home].astype(weight.dtype)
        return np.stack([exact[:, home == channel].sum(1) for channel in range(channels)], 1).astype(weight.dtype)

    def stem(entries: Entries) -> Entries:
        entry = entries[STEM]
        shape = (entry.shape[0], channels, *entry.shape[2:])
        return {**entries, STEM: entry.then(change, shape)}

    model = replace(checkpoint.model, encoder=replace(encoder, in_chans=channels))
    done = "inflated: kernels repeated and divided by the copies" if channels > before else "merged: kernels summed"
    return _changed(checkpoint, model, stem, f"stem: {before} channels to {channels}, {done}")


def with_classes(checkpoint: Checkpoint, classes: int, seed: int = 0) -> Checkpoint:
    """A new head for `classes` classes, initialised as for training; a missing norm starts at 1 and 0."""
    if isinstance(checkpoint.model, FCMAE):
        raise ConvertError("--num-classes: a masked autoencoder has no classes; add --encoder-only")
    if classes < 1:
        raise ConvertError(f"--num-classes: {classes} is not a number of classes")
    if classes == getattr(checkpoint.model, "num_classes", 0):
        return checkpoint
    if getattr(checkpoint.model, "out_norm", False):
        checkpoint = encoder_only(checkpoint)
    model = Classifier(checkpoint.model.encoder, classes)
    fresh = initial_arrays(model, seed)

    def head(entries: Entries) -> Entries:
        dtype = entries[STEM].dtype
        drawn = {path: entry_of(fresh[path].astype(dtype)) for path in fresh if path.startswith(("norm.", "head."))}
        kept = {path: entry for path, entry in entries.items() if not path.startswith("head.")}
        return {path: {**drawn, **kept}[path] for path in fresh}

    norm = " and a norm of 1 and 0" if isinstance(checkpoint.model, Backbone) else ""
    unnamed = replace(checkpoint, meta={key: one for key, one in checkpoint.meta.items() if key != "classes"})
    return _changed(unnamed, model, head, f"head: initialised for {classes} classes{norm}; train it before use")


def cast(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """Parameters and EMA in another dtype; reading them raises ConvertError if a value overflows."""
    dtype = DTYPES[name]

    def change(values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # an overflow is infinite, and refused as such
            return values.astype(dtype)

    def every(entries: Entries) -> Entries:
        made = {path: entry.then(change, dtype=dtype) for path, entry in entries.items()}
        return {path: entry_checked(f"{path} as {name}", entry) for path, entry in made.items()}

    before = sorted({entry.dtype.name for entry in entries_of(checkpoint.arrays).values()})
    line = f"dtype: {', '.join(before)} to {name}"
    arrays, ema = (Arrays(every(entries_of(group))) for group in (checkpoint.arrays, checkpoint.ema))
    return replace(checkpoint, arrays=arrays, ema=ema, notes=[*checkpoint.notes, line])


def _changed(checkpoint: Checkpoint, model: Model, change: Callable[[Entries], Entries], line: str) -> Checkpoint:
    """The checkpoint of the changed model, without moments."""
    lines = [*checkpoint.notes, line]
    if checkpoint.optimizer is not None:
        lines.append("left out: AdamW's moments, which belong to the unchanged model")
    arrays, ema = (Arrays(change(entries_of(group)) if group else {}) for group in (checkpoint.arrays, checkpoint.ema))
    meta = {key: one for key, one in checkpoint.meta.items() if key != "classes" or "head.weight" in arrays}
    return Checkpoint(model, arrays, None, ema, meta, lines)
