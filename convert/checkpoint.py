"""Checkpoints in the spec's names, whatever their format: load and save."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import spec
from convert import adamw, containers, formats, hub, models, naming, plain, trainstate
from convert.arrays import Arrays, Entries, Entry, entries_of
from convert.content import AdamWState, Content
from convert.errors import ConvertError, listed, reading
from convert.files import replacing
from convert.rules import Format, bare
from spec import FCMAE, Classifier, Model

TREES = ("safetensors", "npz", "msgpack", "orbax")
TRAINING = {
    "run": ("ours",),
    "pth": ("ours", "official-dense", "official-sparse"),
    **dict.fromkeys(TREES, ("flax", "nnx")),
}
"""Container -> the formats in which it can hold moments and EMA; in trees, as Flax programs do."""

NO_MOMENTS = "left out: the optimizer, whose moments are of all arrays"

BARE = tuple(("pth", format) for format in ("timm", "hf", "dinov3", "dinov3-hf"))
"""Containers and formats that are a state dict and nothing else."""

HINTS = {
    "input_size": "image_size",
    "mask_ratio": "mask_ratio",
    "norm_pix_loss": "norm_target",
    "drop_path": "drop_path",
}
"""Argument of the published scripts -> field of a model that shapes do not determine."""


@dataclass
class Checkpoint:
    """A model's arrays under the spec's names and layouts, read from the file at each access.

    meta: format, container, classes, and what a training script keeps (epoch, args, ...).
    notes: what was left out, one line each.
    """

    model: Model
    arrays: Mapping[str, np.ndarray]
    optimizer: AdamWState | None = None
    ema: Mapping[str, np.ndarray] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the head's outputs; empty if unknown."""
        return list(self.meta.get("classes", ()))


def load(
    path: str | Path, *, format: str | None = None, weights_only: bool = False, key: str | None = None, prefix: str = ""
) -> Checkpoint:
    """The checkpoint in a file, a folder, or on the hub; ConvertError, one line, when it cannot be one.

    path: hf:OWNER/NAME or hf:OWNER/NAME@REVISION names one on the hub. Only headers are read here.
    format: the name of the format, instead of recognising it;
    weights_only leaves optimizer and EMA out. key: of a .pth, where its parameters are, if not
    under one of the usual keys or at the top. prefix: what the names of the parameters begin with;
    arrays of other names are left out, with a note.

    >>> import tempfile, spec
    >>> from backends.initial import initial_arrays
    >>> model = spec.classifier(depths=(1,), dims=(8,), num_classes=3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     left_out = save(Checkpoint(model, initial_arrays(model)), f"{folder}/x.pth", format="timm")
    ...     checkpoint = load(f"{folder}/x.pth")
    ...     checkpoint.meta["format"], checkpoint.model == model, checkpoint.arrays["head.weight"].shape
    ('timm', True, (3, 8))
    """
    kind, content = containers.read(hub.local(path), weights_only, key)
    with reading(Path(path), kind):
        try:
            content = trainstate.unpack(content, weights_only) if kind in TREES else content
            content = _under_prefix(content, prefix) if prefix else content
            checkpoint = _from_content(content, format)
        except ConvertError as error:
            raise ConvertError(f"{path}: {error}") from error
    checkpoint.meta["container"] = kind
    return checkpoint


def save(checkpoint: Checkpoint, path: str | Path, *, format: str = "ours", force: bool = False) -> list[str]:
    """Write a checkpoint, completely or not at all; returns what had to be left out, one line each.

    The path's suffix chooses the container; without one it is a folder.
    """
    path, kind = Path(path), containers.kind_for(Path(path), format)
    carried, notes = checkpoint, list[str]()
    if format not in TRAINING.get(kind, ()):
        carried, notes = without_training_state(checkpoint, f"{kind} files in the {format} format cannot hold it")
    notes += _not_computed(checkpoint.model, kind, formats.named(format))
    content = _to_content(carried, formats.named(format), in_torch=kind == "pth")
    notes += _not_recorded(checkpoint.model, kind, content)
    content = trainstate.pack(content) if kind in TREES else content
    container = containers.module(kind)
    with replacing(path, force) as aside:
        container.write(aside, content)
    return notes + content.notes


def without_training_state(checkpoint: Checkpoint, why: str) -> tuple[Checkpoint, list[str]]:
    """The checkpoint without optimizer and EMA, and one line for each of them that it had."""
    lines = []
    if checkpoint.optimizer is not None:
        moments = f"AdamW's moments of {len(checkpoint.optimizer.mu)} arrays and t = {checkpoint.optimizer.t}"
        lines.append(f"left out: {moments}: {why}")
    if checkpoint.ema:
        lines.append(f"left out: the EMA of {len(checkpoint.ema)} arrays: {why}")
    return Checkpoint(checkpoint.model, checkpoint.arrays, meta=checkpoint.meta), lines


def _not_recorded(model: Model, kind: str, content: Content) -> list[str]:
    """A line for each field that the file does not record, and that is read from its shapes as another."""
    if (kind, content.format) not in BARE and kind != "msgpack":
        return []
    read_as, advice = _read_bare(content)
    return [
        f"not recorded: {name} {value}: {kind} files in the {content.format} format are read{advice} with {found}"
        for name, value, found in _differences(model, read_as)
    ]


def _read_bare(content: Content) -> tuple[Model, str]:
    """The model that is read from names and shapes only; " with --from FORMAT" if it is not read without."""
    own, found = formats.named(str(content.format)), formats.recognise(_shapes(content.params))
    try:
        return _inferred(found, content.params), ""
    except ConvertError:
        return _inferred(own, content.params), f" (with --from {own.name})"


def _inferred(format: Format, params: Entries) -> Model:
    params, _ = naming.without_surplus(format, params)
    shapes = {path: params[name].shape for name, path in naming.paths(format, params).items()}
    return models.infer(format, shapes, format.fields(shapes))


def _shapes(entries: Entries) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in entries.items()}


def _differences(model: Model, other: Model) -> list[tuple[str, Any, Any]]:
    """(field, its value, that of the other) of the fields in which two models differ."""
    fields, others = ({**asdict(one.encoder), **asdict(one)} for one in (model, other))
    return [
        (name, value, others[name])
        for name, value in fields.items()
        if name in others and name != "encoder" and value != others[name]
    ]


def _not_computed(model: Model, kind: str, format: Format) -> list[str]:
    """A line for each field of the encoder with which the format's programs do not compute."""
    if kind in ("hf", "timm"):  # whose config says it; their writers refuse what it cannot say
        return []
    shapes = {bare(path): param.shape for path, param in spec.parameters(model).items()}
    theirs = {**format.computes, **format.fields(shapes)}
    own = {name: getattr(model.encoder, name) for name in theirs}
    return [
        f"{name} {own[name]}: programs of the {format.name} format compute with {value}"
        for name, value in theirs.items()
        if own[name] != value and not (name == "grn_scope" and model.encoder.block == "v1")
    ]


def _under_prefix(content: Content, prefix: str) -> Content:
    """The content with only the arrays whose names begin with the prefix, without it."""

    def inside(entries: Entries) -> Entries:
        return {name.removeprefix(prefix): entry for name, entry in entries.items() if name.startswith(prefix)}

    others = [name for name in content.params if not name.startswith(prefix)]
    if len(others) == len(content.params):
        raise ConvertError(f"--prefix {prefix}: no array has it; the names are {listed(others, 3)}")
    notes = list(content.notes)
    optimizer = content.optimizer
    if others:
        notes.append(f"left out: {listed(others, 3)}: not under {prefix}")
        if optimizer is not None:
            optimizer = None
            notes.append(NO_MOMENTS)
    return replace(content, params=inside(content.params), ema=inside(content.ema), optimizer=optimizer, notes=notes)


def _from_content(content: Content, format_name: str | None) -> Checkpoint:
    """The content under the spec's names."""
    params, notes = naming.unwrapped(content.params), list(content.notes)
    name = format_name or content.format
    format = formats.named(name) if name else formats.recognise(_shapes(params))
    params, lines = naming.without_surplus(format, params)
    if lines and content.optimizer is not None:
        content.optimizer = None
        lines.append(NO_MOMENTS)
    paths = naming.paths(format, params)
    shapes = {paths[name]: entry.shape for name, entry in params.items()}
    fixed = {name: value for name, value in format.fields(shapes).items() if name not in content.fields}
    if content.model is None:
        lines += [f"{name} {value}, as in the programs of the {format.name} format" for name, value in fixed.items()]
        lines += [format.caution] * bool(format.caution)
    model = content.model or models.infer(format, shapes, fixed | content.fields | _hints(content.meta))
    model = models.without_missing(model, shapes)
    arrays = naming.canonical(format, model, params)
    averaged, _ = naming.without_surplus(format, naming.unwrapped(content.ema))
    ema = naming.canonical(format, model, averaged) if averaged else {}
    if ema and ema.keys() != arrays.keys():
        raise ConvertError("the EMA has other arrays than the model; convert it with --weights-only to leave it out")
    optimizer = _optimizer(format, model, content, params)
    classes, more = _classes(content.meta.pop("classes", None), model)
    meta = {**content.meta, **classes, "format": format.name}
    return Checkpoint(model, Arrays(arrays), optimizer, Arrays(ema), meta, notes + lines + more)


def _classes(names: Any, model: Model) -> tuple[dict[str, list[str]], list[str]]:
    """The names of the classes as a part of meta, and a note where a file has other names than classes."""
    if not names or not isinstance(model, Classifier) or not model.num_classes:
        return {}, []
    if isinstance(names, list) and len(names) == model.num_classes and all(isinstance(name, str) for name in names):
        return {"classes": names}, []
    count = len(names) if isinstance(names, list) else 0
    return {}, [f"left out: {count} class names, which are not the {model.num_classes} of the head"]


def _optimizer(format: Format, model: Model, content: Content, params: Entries) -> AdamWState | None:
    """The moments under the spec's names, in its layouts and order."""
    state = content.optimizer
    if state is None:
        return None
    if all(name.isdecimal() for name in state.mu):
        state = adamw.to_names(state, _rows(format, model, params))
    mu, nu = (naming.canonical(format, model, entries_of(moment)) for moment in (state.mu, state.nu))
    if state.t < 0:
        raise ConvertError(f"the optimizer has made {state.t} updates; the file is damaged")
    if mu.keys() != nu.keys() or len(mu) != len(params):
        raise ConvertError(
            "the optimizer has moments of other arrays than the model; convert it with --weights-only to leave it out"
        )
    nu = {name: _positive(name, entry) for name, entry in nu.items()}
    return AdamWState(Arrays(mu), Arrays(nu), state.t, state.hyper)


def _positive(name: str, entry: Entry) -> Entry:
    def positive(values: np.ndarray) -> np.ndarray:
        if (values < 0).any():
            raise ConvertError(f"{name}: its second moment is negative, unlike a mean of squares; the file is damaged")
        return values

    return entry.then(positive)


def _rows(format: Format, model: Model, params: Entries) -> list[adamw.Row]:
    """The parameters in the order of the state dict."""
    table = {bare(path): param for path, param in spec.parameters(model).items()}
    found = {name: table[path] for name, path in naming.paths(format, params).items()}
    return [adamw.Row(name, entry.shape, found[name].layer_ids) for name, entry in params.items()]


def _to_content(checkpoint: Checkpoint, format: Format, in_torch: bool) -> Content:
    """The checkpoint under the format's names; in_torch: the optimizer by index, as torch keeps it."""
    model = checkpoint.model
    arrays = entries_of(checkpoint.arrays)
    naming.check_complete(model, arrays)
    meta = plain.value({key: one for key, one in checkpoint.meta.items() if key not in ("format", "container")})
    content = Content(naming.foreign(format, model, arrays), meta=meta, model=model, format=format.name)
    content.ema = naming.foreign(format, model, entries_of(checkpoint.ema))
    if checkpoint.optimizer is not None:
        state = checkpoint.optimizer
        mu, nu = (naming.foreign(format, model, entries_of(moment)) for moment in (state.mu, state.nu))
        content.optimizer = AdamWState(Arrays(mu), Arrays(nu), state.t, state.hyper)
        if in_torch:
            grouping = "undecayed first" if isinstance(model, FCMAE) else "decay"
            content.optimizer = adamw.to_indices(content.optimizer, _rows(format, model, content.params), grouping)
    return content


def _hints(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a model from the arguments that a training script recorded."""
    args = meta.get("args")
    return {field: args[name] for name, field in HINTS.items() if name in args} if isinstance(args, Mapping) else {}
