"""Write the tables of docs/ that are computed from code: `python -m tools.tables`, or `make tables`.

A table stands between `<!-- NAME -->` and `<!-- end of NAME -->`. A test checks that the pages are up to date.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import backends
import spec
from convert.formats import FORMATS
from convert.rules import Format
from spec.console import markdown
from train.config import cli
from train.config.recipes import RECIPES, RELEASED

ROOT = Path(__file__).parents[1]

COLUMNS = ("blr", "epochs", "drop_path")

PATHS = (
    "downsample_layers.0.0.weight",
    "downsample_layers.1.0.weight",
    "downsample_layers.1.1.weight",
    "stages.1.0.dwconv.weight",
    "stages.1.0.norm.weight",
    "stages.1.0.pwconv1.weight",
    "stages.1.0.grn.gamma",
    "head.weight",
    "proj.weight",
    "mask_token",
)
"""One array of each kind."""

PREFIXED = ("spark", "dinov3", "bsp36", "open-clip", "viscy-3d")
"""Formats with the names of another one, but for a prefix and single arrays."""

STEPS = (
    "encoder.downsample_layers.0.0",
    "encoder.stages.0.0",
    "encoder.stages.0.0.pwconv1",
    "encoder.downsample_layers.1.1",
    "encoder.downsample_layers.2.1",
    "encoder.downsample_layers.3.1",
    "encoder.stages.3.1",
    "proj",
    "mask_token",
    "decoder.0",
    "pred",
)
"""The steps that change the shape of x, and a few more."""


def recipes() -> str:
    """One row per recipe; recipes that differ in the model only share a row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name in RECIPES:
        config = cli.parse(["--recipe", name, "--data_path", "DATA"])
        flags = config.as_dict()
        decay = f"{flags['layer_decay']:g} {flags['layer_decay_type']}" if flags["layer_decay"] else "-"
        values = (f"{flags[column]:g}" for column in COLUMNS)
        rows.setdefault((str(config.effective_batch), *values, decay), []).append(f"`{name}`")
    head = ("recipe", "images per update", *(f"`{column}`" for column in COLUMNS), "layer decay")
    return markdown([head, *((", ".join(names), *cells) for cells, names in rows.items())])


def released() -> str:
    """The released commands, each below the name of its recipe."""
    lines = (f"# {name}\n{command}" for name, command in RELEASED.items())
    return "\n".join(["```sh", *lines, "```"])


def formats() -> str:
    """The name and axes of one array of each kind in every format; empty where both are the spec's."""
    others = [format for name, format in FORMATS.items() if name not in ("ours", *PREFIXED)]
    head = ("ours", *(format.name for format in others))
    rows = ((f"`{path}` {' '.join(_param(path)[1].axes)}", *(_theirs(path, one) for one in others)) for path in PATHS)
    return markdown([head, *rows])


CLASSIFIER = spec.classifier("convnextv2_atto", num_classes=1000)
FCMAE = spec.fcmae("convnextv2_atto")


def _theirs(path: str, format: Format) -> str:
    model, param = _param(path)
    place = format.place(path, param, model, head=True)
    if place is None:
        return "-"
    name = f"`{place.name}`" if place.name != path else ""
    axes = place.axes if place.axes != " ".join(param.axes) else ""
    return f"{name} {axes}".strip()


def _param(path: str) -> tuple[spec.Model, spec.Param]:
    """The array of a classifier, or of an autoencoder if only that has it."""
    for model in (CLASSIFIER, FCMAE):
        if found := spec.parameters(model).get(path):
            return model, found
    raise KeyError(path)


def shapes() -> str:
    """The shape of x after each kind of step of atto at 224 px, with 19 of 49 patches visible, per engine."""
    masked, visible = (_recorded(engine) for engine in ("masked", "visible"))
    return markdown([("after", "masked", "visible"), *((f"`{name}`", masked[name], visible[name]) for name in STEPS)])


def _recorded(engine: str) -> dict[str, str]:
    """Path of a step -> the shape of x after it."""
    net = backends.load("torch").build(FCMAE)
    mask = (torch.arange(49) >= spec.visible_patches(FCMAE)).view(1, 7, 7)
    found: dict[str, str] = {}

    def record(path: str, x: torch.Tensor, space: object) -> None:
        found[path] = f"(N, {', '.join(map(str, x.shape[1:]))})"

    net(torch.zeros(1, 224, 224, 3), mask, engine=engine, record=record)
    return found


TABLES: dict[str, Callable[[], str]] = {"recipes": recipes, "released": released, "formats": formats, "shapes": shapes}
PAGES = ("docs/recipes.md", "docs/formats.md", "docs/walkthrough.md")


def filled(page: str) -> str:
    """The text of a page with every table computed anew."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        page = re.sub(f"{begin}.*?{end}", lambda _, t=table, b=begin, e=end: f"{b}{t()}\n{e}", page, flags=re.DOTALL)
    return page


def main() -> int:
    """Rewrite the pages; returns the exit status."""
    for name in PAGES:
        path = ROOT / name
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
