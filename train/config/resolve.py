"""Resolve the values of all flags: defaults, a recipe, what the digits need, then a file and the command line."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from spec.console import nearest, table
from train.config.config import FLAGS, Config
from train.config.groups import DIGITS_PATH
from train.config.recipes import DIGITS, DIGITS_IMAGES, DIGITS_MODEL, RECIPES, TASKS, Layer
from train.errors import TrainError


class Resolved(NamedTuple):
    """A configuration, and the source of each of its values."""

    config: Config
    origins: dict[str, str]

    def __str__(self) -> str:
        """One line per flag: name, value, source."""
        values = self.config.flags()
        return table([(name, format_value(values[name]), origin) for name, origin in self.origins.items()])


def resolve(given: Sequence[Layer]) -> Resolved:
    """Resolve layers of given values; TrainError if they cannot be combined.

    Order, later overrides earlier: defaults, those of the task, the recipe, what the digits need,
    the given layers.
    """
    asked = _merged(given)
    recipe = _recipe(asked["recipe"]) if asked.get("recipe") else []
    own_task = _merged(recipe).get("task", "pretrain")
    task = asked.get("task", own_task)
    if recipe and task not in (own_task, "eval", "probe"):
        raise TrainError(f"--recipe {asked['recipe']}: is for --task {own_task}, not {task}")
    defaults = Layer("default", {name: flag.default for name, flag in FLAGS.items()})
    on_digits = asked.get("data_path", DIGITS_PATH) == DIGITS_PATH and not asked.get("images")
    digits = _digits(task, asked, bool(recipe)) if on_digits else []
    layers = [defaults, TASKS[task], *recipe, *digits, *given]
    origins = {name: layer.source for layer in layers for name in layer.values}
    return Resolved(Config.from_flags(**_merged(layers)), origins)


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
        model = {name: value for name, value in DIGITS_MODEL.items() if "model" not in asked or name not in SIZE}
        layers.append(Layer("recipe of the digits", model | DIGITS[task]))
    return layers


SIZE = ("model", "depths", "dims")


def format_value(value: Any) -> str:
    """The value as it is written on the command line."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "none" if value is None else str(value)
