"""What `convert inspect` prints: a checkpoint's format and model, its parts, and what each use would miss."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convert.arrays import Entries, entries_of
from convert.checkpoint import Checkpoint
from convert.errors import listed
from convert.models import DECODER, HEAD
from convert.rules import USUAL, bare
from spec import FCMAE, Classifier, Model
from spec.console import table

FIELDS = {**USUAL, "mask_ratio": 0.6, "mask_rounding": "floor"}
"""Field that the other rows do not show -> its default."""


def report(path: str | Path, checkpoint: Checkpoint) -> str:
    """Three tables: the facts, the parts, the uses."""
    tables = [table(_facts(checkpoint)), table(_parts(entries_of(checkpoint.arrays))), table(_uses(checkpoint))]
    return "\n\n".join([str(path), *tables, *(f"note: {note}" for note in checkpoint.notes)])


def summary(checkpoint: Checkpoint) -> str:
    """The checkpoint in one line."""
    entries = entries_of(checkpoint.arrays)
    values = sum(math.prod(entry.shape) for entry in entries.values())
    model, meta = checkpoint.model, checkpoint.meta
    return f"{meta.get('format')}, {name_of(model)}, {kind_of(checkpoint)}, {len(entries)} arrays, {values:,} values"


def kind_of(checkpoint: Checkpoint) -> str:
    """A masked autoencoder, a classifier, or an encoder."""
    if isinstance(checkpoint.model, FCMAE):
        return "masked autoencoder"
    return "classifier" if getattr(checkpoint.model, "num_classes", 0) else "encoder"


def name_of(model: Model) -> str:
    """The preset's name, or the depths and dims."""
    encoder = model.encoder
    family = "V1, " if encoder.block == "v1" else ""
    return encoder.preset or f"{family}depths {_join(encoder.depths)}, dims {_join(encoder.dims)}"


def _facts(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    model, meta = checkpoint.model, checkpoint.meta
    encoder = model.encoder
    rows = [
        ("format", f"{meta.get('format')}, in {meta.get('container')}"),
        ("model", f"{name_of(model)}, {kind_of(checkpoint)}"),
        ("stem", f"{encoder.in_chans} channels, stride {encoder.stem_stride}, patches of {encoder.patch_size} px"),
    ]
    if isinstance(model, FCMAE):
        height, width = model.image_size
        rows.append(("decoder", f"depth {model.decoder_depth}, width {model.decoder_dim}"))
        rows.append(("images", f"{height} x {width} px"))
    elif isinstance(model, Classifier) and model.num_classes:
        names = f": {listed(checkpoint.classes, 5)}" if checkpoint.classes else ", names unknown"
        rows.append(("classes", f"{model.num_classes}{names}"))
    state = checkpoint.optimizer
    fields = {name: getattr(model, name, getattr(encoder, name, usual)) for name, usual in FIELDS.items()}
    unusual = [f"{name} {value}" for name, value in fields.items() if value != FIELDS[name]]
    rows += [("fields", ", ".join(unusual))] if unusual else []
    rows += [
        ("optimizer", f"AdamW after {state.t} updates" if state else "none"),
        ("EMA", f"{len(checkpoint.ema)} arrays" if checkpoint.ema else "none"),
    ]
    return rows + ([("epoch", str(meta["epoch"]))] if "epoch" in meta else [])


def _parts(entries: Entries) -> list[tuple[str, ...]]:
    """Arrays, values, bytes and dtypes of each part: downsample_layers.0, stages.0, ..., pred."""
    parts: dict[str, Entries] = {}
    for path, entry in entries.items():
        pieces = bare(path).split(".")
        part = ".".join(pieces[:2]) if pieces[0] in ("downsample_layers", "stages") else pieces[0]
        parts.setdefault(part, {})[path] = entry
    return [("part", "arrays", "values", "MB", "dtype"), *(_part(*one) for one in (*parts.items(), ("all", entries)))]


def _part(name: str, entries: Entries) -> tuple[str, ...]:
    values = sum(math.prod(entry.shape) for entry in entries.values())
    megabytes = sum(entry.nbytes for entry in entries.values()) / 1e6
    dtypes = sorted({entry.dtype.name for entry in entries.values()})
    return name, str(len(entries)), f"{values:,}", f"{megabytes:,.2f}", ", ".join(dtypes)


def _uses(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    has = {path.split(".")[0] for path in checkpoint.arrays}
    lacks: dict[str, list[str]] = {
        "features": [],
        "classification": [part for part in HEAD if part not in has],
        "pre-training": [part for part in DECODER if part not in has],
    }
    wanted: dict[str, Any] = {"moments": checkpoint.optimizer}
    if not isinstance(checkpoint.model, FCMAE):
        wanted["EMA"] = checkpoint.ema  # pre-training keeps none
    lacks["resuming training"] = [what for what, there in wanted.items() if not there]
    return [("use", "missing"), *((use, ", ".join(missing) or "nothing") for use, missing in lacks.items())]


def _join(values: Sequence[int]) -> str:
    return "-".join(map(str, values))
