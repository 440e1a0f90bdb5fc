"""The rules engine: a format is a table of names beside the spec's, with axes in einops notation.

A rule pairs the spec's path of an array with the format's name for it:

    Rule("stages.{i}.{j}.grn.gamma", "{trunk}stages.{i}.{j}.grn.gamma", "1 1 1 ch")

`{i}` and `{j}` are numbers, `*` is weight or bias, `{trunk}` is the prefix of the encoder's names,
`{last}` the number of the last stage. The axes are those of the format in memory order, brackets merge
several into one; without axes the layout is the spec's. Everything else is computed from
`spec.parameters`: both directions of the renaming, the permutation and its inverse, the expected shapes.
Rules are listed in the order of the format's own state dict.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from convert.arrays import Entry
from spec import EPS, FCMAE, Model, Param
from spec.parameters import in_tree_order

NUMBER = "0|[1-9][0-9]{0,3}"
USUAL: dict[str, Any] = {"grn_scope": "image", "norm_eps": EPS, "dwconv_bias": True}
NORMS = "norms of single stages' outputs, which the model does not have"


class Rule(NamedTuple):
    """The spec's path without "encoder.", the format's name, the format's axes (fixed, or a choice by the model)."""

    ours: str
    theirs: str
    axes: str | Callable[[Model], str] = ""


class Part(NamedTuple):
    """Arrays that files hold beside the model's: a regular expression, and what they are.

    They are left out of a file in which some name matches `sign`; by default, one of their own.
    """

    names: str
    what: str
    sign: str = ""


class Place(NamedTuple):
    """Where a format puts one array: its name, axes and shape there."""

    name: str
    axes: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Format:
    """A naming of the parameters.

    A file is of this format if a name in it matches the regular expression `sign` and, where
    `sign_shape` is given, that array has such a shape; None stands for any size.
    """

    name: str
    sign: str
    rules: tuple[Rule, ...]
    sign_shape: tuple[int | None, ...] | None = None
    trunks: tuple[str, ...] = ("",)
    trunk: Callable[[Model, bool], str] = lambda model, head: ""
    """The prefix of the encoder's names in a model, with or without a head."""
    parts: tuple[Part, ...] = ()
    copies: tuple[Rule, ...] = ()
    """Second names of arrays, under which files hold them once more."""
    fields: Callable[[Mapping[str, tuple[int, ...]]], dict[str, Any]] = lambda shapes: {}
    """Fields of the encoder that the format's programs fix, from shapes by bare path."""
    computes: Mapping[str, Any] = field(default_factory=lambda: USUAL, hash=False)
    """What the format's programs compute with, beside `fields`; empty if the model says it."""
    caution: str = ""
    """How the model differs from what the programs compute."""

    def signed(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether an array of this name and shape is this format's sign."""
        wanted = shape if self.sign_shape is None else self.sign_shape
        fitting = len(wanted) == len(shape) and all(w in (None, s) for w, s in zip(wanted, shape, strict=True))
        return fitting and re.fullmatch(self.sign, name) is not None

    def path(self, name: str) -> str | None:
        """The spec's path, without "encoder.", of a name in this format; None if it has no such name."""
        return _path(self.rules, self.trunks, name)

    def original(self, name: str) -> str | None:
        """The same of a second name."""
        return _path(self.copies, self.trunks, name)

    def surplus(self, names: Iterable[str]) -> dict[str, str]:
        """Name -> what it is, of the arrays that the model does not have."""
        every = list(names)
        stages = {
            name: int(m["last"])
            for rule in self.rules
            if "{last}" in rule.theirs
            for name in every
            if (m := _regex(rule.theirs, self.trunks).fullmatch(name))
        }
        norms = {name: NORMS for name, stage in stages.items() if stage < max(stages.values())}
        return norms | {
            name: part.what
            for part in self.parts
            if any(re.fullmatch(part.sign or part.names, name) for name in every)
            for name in every
            if re.fullmatch(part.names, name)
        }

    def axes(self, path: str) -> str:
        """The axes of an array whose axes do not depend on the model; "" if they are the spec's."""
        rule, _ = self._match(path)
        return rule.axes if rule and isinstance(rule.axes, str) else ""

    def place(self, path: str, param: Param, model: Model, head: bool) -> Place | None:
        """The place of the spec's array `path`; None if the format has none."""
        rule, wild = self._match(path)
        return None if rule is None else self._place(rule, wild, param, model, head)

    def second_places(self, path: str, param: Param, model: Model, head: bool) -> list[Place]:
        """The places of its copies."""
        found = ((rule, _regex(rule.ours, self.trunks).fullmatch(bare(path))) for rule in self.copies)
        return [self._place(rule, match.groupdict(), param, model, head) for rule, match in found if match]

    def _place(self, rule: Rule, wild: dict[str, str], param: Param, model: Model, head: bool) -> Place:
        axes = rule.axes(model) if callable(rule.axes) else rule.axes
        axes = axes or " ".join(param.axes)
        last = len(model.encoder.depths) - 1
        name = _fill(rule.theirs, wild | {"trunk": self.trunk(model, head), "last": str(last)})
        return Place(name, axes, shape_of(axes, sizes(param)))

    def in_order(self, places: Mapping[str, Place]) -> dict[str, Place]:
        """The places in the order of the format's state dict: a tree whose branches are ordered as the rules."""
        ranks: dict[Rule | None, int] = {rule: rank for rank, rule in enumerate(self.rules)}
        ranked = sorted(places, key=lambda path: ranks[self._match(path)[0]])
        paths = {places[path].name: path for path in ranked}
        return {paths[name]: places[paths[name]] for name in in_tree_order(paths)}

    def _match(self, path: str) -> tuple[Rule | None, dict[str, str]]:
        """The rule of a path, and the values of its wildcards."""
        for rule in self.rules:
            found = _regex(rule.ours, self.trunks).fullmatch(bare(path))
            if found:
                return rule, found.groupdict()
        return None, {}


def to_canonical(entry: Entry, place: Place, param: Param) -> Entry:
    """The entry in the spec's layout: the inverse of `to_format`. Its shape must fit, see `fits`."""
    flat = _flat(place.axes)
    side, order = sizes(param), [flat.index(axis) for axis in param.axes]

    def permute(values: np.ndarray) -> np.ndarray:
        return values.reshape([side[axis] for axis in flat]).transpose(order)

    return entry.then(permute, param.shape)


def to_format(entry: Entry, place: Place, param: Param) -> Entry:
    """An entry of the spec's layout in the format's layout; merged axes are copied, the rest is a view."""
    order = [param.axes.index(axis) for axis in _flat(place.axes)]
    return entry.then(lambda values: values.transpose(order).reshape(place.shape), place.shape)


def fits(shape: tuple[int, ...], place: Place) -> bool:
    """Whether an array of `shape` fits there: programs differ in axes of size 1, and in no others."""
    return [side for side in shape if side != 1] == [side for side in place.shape if side != 1]


def sizes(param: Param) -> dict[str, int]:
    """Axis -> size."""
    return dict(zip(param.axes, param.shape, strict=True))


def shape_of(axes: str, side: Mapping[str, int]) -> tuple[int, ...]:
    """The shape that axes describe: "(kw kh) in out" -> (4, 8, 16)."""
    groups = re.findall(r"\([^)]*\)|\S+", axes)
    return tuple(math.prod(side[axis] for axis in _flat(group)) for group in groups)


def encoder_of_fcmae(model: Model, head: bool) -> str:
    """The trunk of most formats: "encoder." in an FCMAE."""
    return "encoder." if isinstance(model, FCMAE) else ""


def bare(path: str) -> str:
    """The spec's path without the "encoder." that an FCMAE puts before its encoder."""
    return path.removeprefix("encoder.")


def _flat(axes: str) -> list[str]:
    return re.findall(r"[a-z]+", axes)


@cache
def _regex(template: str, trunks: tuple[str, ...]) -> re.Pattern[str]:
    pieces = re.split(r"(\*|\{[a-z]+\})", template)
    wild = {
        "*": "(?P<leaf>weight|bias)",
        "{i}": f"(?P<i>{NUMBER})",
        "{j}": f"(?P<j>{NUMBER})",
        "{last}": f"(?P<last>{NUMBER})",
        "{trunk}": f"(?:{'|'.join(map(re.escape, trunks))})",
    }
    return re.compile("".join(wild.get(piece, re.escape(piece)) for piece in pieces))


def _path(rules: tuple[Rule, ...], trunks: tuple[str, ...], name: str) -> str | None:
    for rule in rules:
        found = _regex(rule.theirs, trunks).fullmatch(name)
        if found:
            return _fill(rule.ours, found.groupdict())
    return None


def _fill(template: str, wild: Mapping[str, str]) -> str:
    return template.replace("*", "{leaf}").format_map(wild)
