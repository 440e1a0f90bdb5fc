"""Resolve the values of all flags: defaults, a recipe, what the digits need, then a file and the command line."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from convert.preparation import IMAGENET
from spec.console import nearest, table
from train.config.config import FLAGS, Config, Flag, format_value
from train.config.groups import DIGITS_PATH
from train.config.inherit import NOTHING, Inherited, from_checkpoint
from train.config.recipes import DIGITS, DIGITS_IMAGES, DIGITS_MODEL, RECIPES, TASKS, Layer
from train.errors import TrainError


class Resolved(NamedTuple):
    """A configuration, and the source of each of its values."""

    config: Config
    origins: dict[str, str]

    def __str__(self) -> str:
        """One line per flag that the task uses: name, value, source."""
        values = self.config.used_flags()
        return table([(name, format_value(value), self.origins[name]) for name, value in values.items()])


COMMAND_LINE = "the command line"  # source of the values that are given there


def resolve(given: Sequence[Layer], strict: bool = True) -> Resolved:
    """Resolve layers of given values; TrainError if they cannot be combined.

    Order, later overrides earlier: defaults, those of the task, the recipe, what the digits need, the
    run of the checkpoint, the given layers. strict: refuse a flag that the task does not use.
    """
    asked = _merged(given)
    recipe = _recipe(asked["recipe"]) if asked.get("recipe") else []
    own_task = _merged(recipe).get("task", "pretrain")
    task = asked.get("task", own_task)
    if recipe and task not in (own_task, "eval", "probe"):
        raise TrainError(f"--recipe {asked['recipe']}: is for --task {own_task}, not {task}")
    defaults = Layer("default", {name: flag.default for name, flag in FLAGS.items()})
    known, notes, normalises = from_checkpoint(task, asked) if strict else Inherited(NOTHING)
    digits = _digits(task, asked, bool(recipe)) if _on_digits(task, _merged([known, *given])) else []
    layers = [defaults, TASKS[task], *recipe, *digits, known]
    if strict:
        _refuse_unused(task, given, _merged(layers))
    layers += given
    layers.insert(1, _averaged(_merged(layers)["in_chans"]))
    origins = {name: layer.source for layer in layers for name in layer.values}
    config = Config.from_flags(**_merged(layers))
    if strict and config.run.backend == "jax" and config.run.compile is not None:  # older runs recorded False
        advice = "leave it out, or give --backend torch"
        raise TrainError(f"--compile {config.run.compile}: is for torch, JAX always compiles; {advice}")
    config = replace(config, given=frozenset(_merged(given)), notes=notes, normalises=normalises)
    return Resolved(config, origins)


def _on_digits(task: str, values: Mapping[str, Any]) -> bool:
    """Whether the images that the task reads are the digits; training and probes read data_path, too."""
    read = (values.get("eval_data_path") if task == "eval" else "") or values.get("data_path", DIGITS_PATH)
    return read == DIGITS_PATH and not values.get("images")


def _averaged(channels: int) -> Layer:
    """Mean and standard deviation of ImageNet for images that are not RGB: one value for all channels."""
    if channels == 3:
        return Layer("default", {})
    values = {name: (round(sum(each) / 3, 4),) for name, each in IMAGENET.items()}
    return Layer("default, averaged over red, green and blue", values)


def _refuse_unused(task: str, given: Sequence[Layer], otherwise: Mapping[str, Any]) -> None:
    """TrainError for a given flag that the run does not use.

    In a file a value that would be the same without it is allowed: older versions wrote every flag.
    """
    submits = "slurm" in _merged(given)
    for layer in given:
        for name, value in layer.values.items():
            unused = _why_unused(FLAGS[name], task, submits)
            if unused and (layer.source == COMMAND_LINE or value != otherwise[name]):
                place = "" if layer.source == COMMAND_LINE else f"{layer.source}: "
                raise TrainError(f"{place}--{name}: {unused}")


def _why_unused(flag: Flag, task: str, submits: bool) -> str:
    """Why the task does not use a flag, and what to do; "" if it does."""
    if task not in flag.tasks:
        return f"--task {task} does not use it, only {', '.join(flag.tasks)}; leave it out"
    if flag.group == "slurm" and not submits:
        return "is for submitting to SLURM; give --slurm True, too, or leave it out"
    return ""


def _merged(layers: Iterable[Layer]) -> dict[str, Any]:
    return {name: value for layer in layers for name, value in layer.values.items()}


def _recipe(name: str) -> list[Layer]:
    if name in RECIPES:
        return RECIPES[name]
    hint = nearest(name, RECIPES) or f"choose one of {', '.join(RECIPES)}"
    raise TrainError(f"--recipe {name}: unknown; {hint}")


def _digits(task: str, asked: Mapping[str, Any], has_recipe: bool) -> list[Layer]:
    """Properties of the digits; without a recipe, also values that suit them, but for a model that is given."""
    layers = [Layer("what the digits need", DIGITS_IMAGES)]
    if not has_recipe:
        sizes = ("model", "depths", "dims") if "model" in asked else ()
        model = {name: value for name, value in DIGITS_MODEL.items() if name not in sizes}
        layers.append(Layer("recipe of the digits", model | DIGITS[task]))
    return layers
