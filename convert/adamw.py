"""AdamW's moments by name, and in torch's state dict, which knows parameters by their index only.

Indices count through the parameter groups, and scripts group parameters in different ways.
A grouping is recognised by its group sizes and by the shapes of the moments.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

from convert.arrays import Arrays, entries_of
from convert.content import AdamWState
from convert.errors import ConvertError
from spec import LayerIds


@dataclass(frozen=True)
class Row:
    """A parameter, in the order of the state dict: its name and shape there, and its layer ids in the spec."""

    name: str
    shape: tuple[int, ...]
    layer_ids: LayerIds

    @property
    def bias_like(self) -> bool:
        """timm's rule looks at the rank only, so the sparse GRN (1, ch) and the mask token do decay."""
        return len(self.shape) <= 1 or self.name.endswith(".bias")

    @property
    def undecayed(self) -> bool:
        """The fine-tuning script's rule, which exempts GRN too."""
        return self.bias_like or self.name.endswith((".gamma", ".beta"))


def _by(key: Callable[[Row], Any]) -> Callable[[Sequence[Row]], list[list[Row]]]:
    def group(rows: Sequence[Row]) -> list[list[Row]]:
        groups: dict[Any, list[Row]] = {}
        for row in rows:
            groups.setdefault(key(row), []).append(row)
        return list(groups.values())

    return group


GROUPINGS: dict[str, Callable[[Sequence[Row]], list[list[Row]]]] = {
    "one": lambda rows: [list(rows)],
    "undecayed first": lambda rows: [[r for r in rows if r.bias_like], [r for r in rows if not r.bias_like]],
    "decay": _by(lambda row: row.undecayed),
    "layers, single": _by(lambda row: (row.layer_ids["single"], row.undecayed)),
    "layers, group": _by(lambda row: (row.layer_ids["group"], row.undecayed)),
}
"""In order: plain AdamW(model.parameters()); timm's, in the pre-training script; the fine-tuning script's three."""


def to_names(state: AdamWState, rows: Sequence[Row]) -> AdamWState:
    """The moments by name, from those by index; ConvertError when no known grouping of the rows fits the indices."""
    groups = state.hyper["groups"]
    lengths = [len(group.get("params", ())) for group in groups]
    indices = [str(index) for group in groups for index in group.get("params", ())]
    mu, nu = entries_of(state.mu), entries_of(state.nu)
    for grouping, split in GROUPINGS.items():
        split_rows = split(rows)
        order = [row for group in split_rows for row in group]
        if [len(group) for group in split_rows] != lengths or set(indices) != set(mu):
            continue
        if all(mu[i].shape == nu[i].shape == row.shape for i, row in zip(indices, order, strict=True)):
            first, second = (Arrays({row.name: m[i] for i, row in zip(indices, order, strict=True)}) for m in (mu, nu))
            options = [{key: one for key, one in group.items() if key != "params"} for group in groups]
            return AdamWState(first, second, state.t, {**_common(options), "grouping": grouping, "groups": options})
    raise ConvertError(
        f"optimizer: {len(mu)} moments in groups of {lengths} fit the {len(rows)} parameters in none of the known"
        " groupings; convert it with --weights-only to leave the optimizer out"
    )


def to_indices(state: AdamWState, rows: Sequence[Row], grouping: str) -> AdamWState:
    """The moments by index, from those by name: grouped as in their source, or else by `grouping`."""
    grouping = str(state.hyper.get("grouping", grouping))
    groups = GROUPINGS.get(grouping, GROUPINGS["one"])(rows)
    names = [row.name for group in groups for row in group]
    mu, nu = ({str(i): entries_of(moment)[name] for i, name in enumerate(names)} for moment in (state.mu, state.nu))
    numbers, options = count(), _options(groups, state.hyper, grouping)
    made = [{**o, "params": list(islice(numbers, len(group)))} for group, o in zip(groups, options, strict=True)]
    return AdamWState(Arrays(mu), Arrays(nu), state.t, {"groups": made})


def _options(groups: list[list[Row]], hyper: dict[str, Any], grouping: str) -> list[dict[str, Any]]:
    """The options of each group: those of its source, or the common ones, without decay where none belongs."""
    source = hyper.get("groups")
    if isinstance(source, list) and len(source) == len(groups):
        return source
    common = {name: hyper[name] for name in COMMON if name in hyper}
    spared = [grouping != "one" and all(row.undecayed for row in group) for group in groups]
    return [{**DEFAULTS, **common, **({"weight_decay": 0.0} if spare else {})} for spare in spared]


COMMON = ("lr", "betas", "eps", "weight_decay")
DEFAULTS = {"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.05, "amsgrad": False}


def _common(options: list[dict[str, Any]]) -> dict[str, Any]:
    """The hyperparameters of the run: of each, the largest among the groups."""
    found = {name: [one[name] for one in options if name in one] for name in COMMON}
    return {name: max(values) for name, values in found.items() if values}
