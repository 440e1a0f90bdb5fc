"""From what was asked for to a run: defaults, a recipe, what the digits need, then a file and the flags."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from train.config.config import FLAGS, Config
from train.config.groups import DIGITS_PATH
from train.config.recipes import DIGITS, DIGITS_IMAGES, DIGITS_MODEL, RECIPES, TASKS, Layer
from train.errors import TrainError


class Resolved(NamedTuple):
    """A run, and where each of its values comes from."""

    config: Config
    origins: dict[str, str]

    def __str__(self) -> str:
        """A line a value."""
        values = self.config.flags()
        rows = [(name, shown(values[name]), origin) for name, origin in self.origins.items()]
        name, value = (max(len(row[column]) for row in rows) for column in (0, 1))
        return "\n".join(f"{row[0]:{name}}  {row[1]:{value}}  {row[2]}" for row in rows)


def resolve(given: Sequence[Layer]) -> Resolved:
    """The run that some layers of given values ask for; TrainError for what cannot be.

    Later wins: defaults, those of the task, the recipe, what the digits need, the given.
    """
    asked = _merged(given)
    recipe = _recipe(asked["recipe"]) if asked.get("recipe") else []
    trained = _merged(recipe).get("task", "pretrain")
    task = asked.get("task", trained)
    if recipe and task not in (trained, "eval", "probe"):
        raise TrainError(f"--recipe {asked['recipe']}: is for --task {trained}, not {task}")
    defaults = Layer("default", {name: flag.default for name, flag in FLAGS.items()})
    seen = asked.get("data_path", DIGITS_PATH) == DIGITS_PATH and not asked.get("images")
    digits = _digits(task, asked, bool(recipe)) if seen else []
    layers = [defaults, TASKS[task], *recipe, *digits, *given]
    origins = {name: layer.source for layer in layers for name in layer.values}
    return Resolved(Config.from_flags(**_merged(layers)), origins)


def _merged(layers: Iterable[Layer]) -> dict[str, Any]:
    return {name: value for layer in layers for name, value in layer.values.items()}


def _recipe(name: str) -> list[Layer]:
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name, RECIPES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(RECIPES)}"
    raise TrainError(f"--recipe {name}: unknown; {hint}")


def _digits(task: str, asked: Mapping[str, Any], named: bool) -> list[Layer]:
    """What the digits are, and, where neither a recipe nor a model is named, what suits them."""
    layers = [Layer("what the digits need", DIGITS_IMAGES)]
    if not named:
        model = {name: value for name, value in DIGITS_MODEL.items() if "model" not in asked or name not in SIZE}
        layers.append(Layer("recipe of the digits", model | DIGITS[task]))
    return layers


SIZE = ("model", "depths", "dims")


def shown(value: Any) -> str:
    """A value as a user would write it."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "none" if value is None else str(value)
