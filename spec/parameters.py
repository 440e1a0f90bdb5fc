"""The parameter table: name, shape, first values, weight decay and layer of every learnt array.

Initialisation, weight decay, layer-wise decay, counts and every converter read this table.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, chain
from typing import TypedDict

from spec import checks
from spec.model import FCMAE, Encoder, Model, modules
from spec.steps import Array, Named, Residual

GROUPS = 12
"""The number of layers of the "group" rule, whatever the depths (written for 3-3-27-3)."""


class LayerIds(TypedDict):
    """The layer of an array for layer-wise decay, by each rule: one layer per block, or 12 groups."""

    single: int
    group: int


@dataclass(frozen=True)
class Param(Array):
    """An array of a model, with its layer for layer-wise decay: `layer_ids["single"]` or `layer_ids["group"]`."""

    layer_ids: LayerIds


@cache
def _table(model: Model) -> tuple[tuple[str, Param], ...]:
    encoder = model.encoder
    prefix = "encoder." if isinstance(model, FCMAE) else ""
    ids = {prefix + name: layers for name, layers in _layer_ids(encoder).items()}
    past: LayerIds = {"single": encoder.num_blocks + 1, "group": GROUPS + 1}
    rows: dict[str, Param] = {}
    for name, step in modules(model):
        for path, array in _arrays(((name, step),)):
            rows[path] = Param(array.axes, array.shape, array.init, array.decays, ids.get(name, past))
    return tuple((path, rows[path]) for path in in_tree_order(rows))


def parameters(model: Model) -> dict[str, Param]:
    """Canonical name -> Param, in the order of the module tree.

    >>> import spec
    >>> param = parameters(spec.classifier("convnextv2_atto"))["stages.0.0.dwconv.weight"]
    >>> param.shape, param.init, param.decays, param.layer_ids
    ((40, 1, 7, 7), Draw(kind='trunc_normal', scale=0.02), True, {'single': 1, 'group': 1})
    """
    return dict(_table(model))


def num_layers(model: Model, rule: str) -> int:
    """The number of layers for layer-wise decay: scale = decay ** (num_layers + 1 - id)."""
    checks.one_of("layer decay rule", rule, ("single", "group"))
    return model.encoder.num_blocks if rule == "single" else GROUPS


def count(model: Model) -> int:
    """The number of learnt values.

    >>> import spec
    >>> count(spec.classifier("convnextv2_atto"))
    3708400
    """
    return sum(param.size for _, param in _table(model))


def _arrays(steps: Named, prefix: str = "") -> Iterator[tuple[str, Array]]:
    for name, step in steps:
        for leaf, array in step.arrays().items():
            yield (f"{prefix}{name}.{leaf}" if leaf else f"{prefix}{name}"), array
        if isinstance(step, Residual):
            yield from _arrays(step.body, f"{prefix}{name}.")


def _layer_ids(encoder: Encoder) -> dict[str, LayerIds]:
    """Name -> layer ids of every step of the encoder, as in the published optim_factory.py.

    The group rule takes the third stage three blocks at a time; past its 27 blocks the
    last group continues, so that ids keep rising with depth.
    """
    ids: dict[str, LayerIds] = {}
    for stage, depth in enumerate(encoder.depths):
        before = sum(encoder.depths[:stage])
        for j in range(2):
            group = {0: 0, 1: 2, 2: 3}.get(stage, GROUPS)
            ids[f"downsample_layers.{stage}.{j}"] = {"single": before + 1, "group": group}
        for j in range(depth):
            group = {0: 1, 1: 2, 2: min(3 + j // 3, GROUPS - 1)}.get(stage, GROUPS)
            ids[f"stages.{stage}.{j}"] = {"single": before + j + 1, "group": group}
    return ids


def in_tree_order(names: Iterable[str]) -> list[str]:
    """Dotted names regrouped so that those with a common prefix stand together, as in a tree of modules."""
    branches = {name: list(accumulate(name.split("."), "{}.{}".format)) for name in names}
    first: dict[str, int] = {}
    for branch in chain.from_iterable(branches.values()):
        first.setdefault(branch, len(first))
    return sorted(branches, key=lambda name: [first[branch] for branch in branches[name]])
