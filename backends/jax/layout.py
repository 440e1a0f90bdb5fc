"""Flax's axis orders; the only module that permutes between them and the spec's."""

import numpy as np

import spec

ORDER = {
    ("out", "in", "kh", "kw"): ("kh", "kw", "in", "out"),
    ("ch", "one", "kh", "kw"): ("kh", "kw", "one", "ch"),
    ("out", "in"): ("in", "out"),
    ("ch",): ("ch",),
}
"""Canonical axes -> flax axes."""


def permuted(array: spec.Array) -> spec.Array:
    """The array as flax lays it out."""
    axes = ORDER[array.axes]
    shape = tuple(array.shape[array.axes.index(axis)] for axis in axes)
    return spec.Array(axes, shape, array.init, array.decays)


def shapes(model: spec.Model) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter of a model in flax's layout."""
    return {name: permuted(param).shape for name, param in spec.parameters(model).items()}


def to_flax(array: spec.Array, value: np.ndarray) -> np.ndarray:
    """A canonical value in flax's layout."""
    return np.transpose(value, [array.axes.index(axis) for axis in ORDER[array.axes]])


def to_canonical(array: spec.Array, value: np.ndarray) -> np.ndarray:
    """A value in flax's layout as the canonical, contiguous array."""
    axes = ORDER[array.axes]
    return np.ascontiguousarray(np.transpose(value, [axes.index(axis) for axis in array.axes]))
