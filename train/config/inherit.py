"""The values that a task takes from the run of its checkpoint, unless they are given."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import convert
from convert import ConvertError, preparation
from convert.preparation import PHOTOGRAPHS
from spec import FCMAE
from train.config.config import FLAGS, format_value
from train.config.groups import TRAIN
from train.config.recipes import Layer

IMAGES = ("input_size", "mean", "std", "crop_pct", "exif", "image_bits", "picture_channels")
"""Flags that say what images a model has seen; so does in_chans."""

DATA = (
    *("data_path", "eval_data_path", "image_key", "label_key", "image_column", "label_column"),
    *("mask_key", "mask_column", "channel_axis"),
)
"""Flags that say where the images of a run are, and how to read them: not taken if other data is given."""

NOTHING = Layer("", {})
VALUES = "values"  # the key of a checkpoint's metadata that says what the values of its images were


class Inherited(NamedTuple):
    """The values of a checkpoint's run, and lines that say which are taken and which differ.

    normalises: the values of images that mean and std are for.
    """

    values: Layer
    notes: tuple[str, ...] = ()
    normalises: str = PHOTOGRAPHS


def checkpoint_path(task: str, asked: Mapping[str, Any]) -> str:
    """The checkpoint that a task uses; "" for none. Training continues from --resume, which is not meant here."""
    return str(asked.get("finetune") or asked.get("init_from") or ("" if task in TRAIN else asked.get("resume")) or "")


def from_checkpoint(task: str, asked: Mapping[str, Any]) -> Inherited:
    """What a task takes from the run of its checkpoint. Nothing if there is none that can be read: the task says so."""
    path = checkpoint_path(task, asked)
    resumed = _resumed(task, asked) if path else NOTHING
    source, values = resumed if resumed.values else _known(path, task) if path else NOTHING
    normalises, dropped = values.get(VALUES, PHOTOGRAPHS), (*_replaced_data(task, asked), VALUES)
    if asked.get("in_chans", values.get("in_chans")) != values.get("in_chans"):
        dropped, normalises = (*dropped, "mean", "std", "picture_channels"), PHOTOGRAPHS
    values = {name: value for name, value in values.items() if name not in dropped}
    notes = [] if resumed.values else _differences(Layer(source, values), asked)  # resuming reports them itself
    taken = {name: value for name, value in values.items() if value and name not in asked}
    if taken:
        words = " ".join(f"--{name} {format_value(value)}" for name, value in taken.items())
        notes.insert(0, f"from {source}: {words}")
    for other in asked.get("against") or ():
        notes += _differences(_known(other, task), values | dict(asked))
    return Inherited(Layer(source, taken), tuple(notes), normalises)


def _resumed(task: str, asked: Mapping[str, Any]) -> Layer:
    """The values of the run in --output_dir that training resumes; NOTHING if there is none."""
    folder = asked.get("output_dir")
    resumes = task in TRAIN and folder and asked.get("auto_resume", True)
    return _known(str(folder), task, of_task=True) if resumes else NOTHING


def _replaced_data(task: str, asked: Mapping[str, Any]) -> tuple[str, ...]:
    """The flags of DATA that do not describe the data that is given. Evaluation reads one source only."""
    if asked.get("data_path") or asked.get("images"):
        return DATA
    return DATA[1:] if task == "eval" and asked.get("eval_data_path") else ()


def _differences(known: Layer, asked: Mapping[str, Any]) -> list[str]:
    """A line for each value that is another than that of the checkpoint's run."""
    return [
        f"note: --{name} is {format_value(asked[name])}, {known.source} had {format_value(value)}"
        for name, value in known.values.items()
        if name in asked and name not in DATA and asked[name] != value
    ]


def _known(path: str, task: str, of_task: bool = False) -> Layer:
    """The values in a checkpoint that the task uses; NOTHING if there are none.

    of_task: take only those of a run of this task.
    """
    try:
        checkpoint = convert.load(path, weights_only=True)
    except (ConvertError, OSError):
        return NOTHING
    if of_task and checkpoint.meta.get("identity", {}).get("task") != task:
        return NOTHING
    found = _recorded(checkpoint.meta)
    if isinstance(checkpoint.model, FCMAE):
        found |= {name: getattr(checkpoint.model, name) for name in ("mask_ratio", "mask_rounding")}
    found["in_chans"] = checkpoint.model.encoder.in_chans
    source = f"the run of {path}" if "config" in checkpoint.meta else path
    used = {name: value for name, value in found.items() if task in FLAGS[name].tasks}
    return Layer(source, {**used, VALUES: preparation.values(checkpoint.meta)})


def _recorded(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The values in the records of a run of ours, of the published scripts, or of a hub folder."""
    config = meta.get("config")
    if not isinstance(config, Mapping):
        return preparation.recorded(meta)
    own = config.get("task", "pretrain")
    names = (*IMAGES, *DATA, "mask_policy")
    found = {name: config[name] for name in names if name in config and own in FLAGS[name].tasks}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
