"""Is an exported program the model? Run it in its own runtime, and the backend in float64, on the same inputs.

The bound is that of rounding: how far the backend's outputs move when every parameter moves by one
rounding error of the dtype.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from backends.protocol import ROUNDING
from convert import Checkpoint
from convert.verify import gap
from export.signature import Signature

Program = Callable[..., list[np.ndarray]]
"""The outputs of a signature from its inputs, as arrays of numpy."""

SIZES = ((1, 2, 3), (3, 4, 2))  # images, rows and columns of patches

FACTOR = 8.0
"""Largest ratio of an output's gap to the movement that still counts as rounding. Largest seen: 3.1."""


class Gap(NamedTuple):
    """The distance of an output from that of the backend, relative to its largest entry, and what is allowed."""

    output: str
    found: float
    bound: float

    @property
    def ok(self) -> bool:
        return self.found <= self.bound  # not for NaN

    def __str__(self) -> str:
        return f"{self.output}: largest gap {self.found:.1e}, {self.bound:.1e} allowed"


def largest_gaps(
    checkpoint: Checkpoint, signature: Signature, exported: Program, exact: Callable[[Checkpoint], Program], dtype: str
) -> list[Gap]:
    """The largest gap of each output over SIZES. exact: the backend's program of a checkpoint, in float64."""
    inputs = [_inputs(signature, size) for size in SIZES]
    expected = _run(exact(checkpoint), inputs)
    moved = _run(exact(_moved(checkpoint, ROUNDING[dtype])), inputs)
    found = _run(exported, inputs)
    return [
        Gap(name, _largest(found, expected, index), FACTOR * _largest(moved, expected, index))
        for index, name in enumerate(signature.outputs)
    ]


def _run(program: Program, inputs: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    return [program(*arrays) for arrays in inputs]


def _largest(found: list[list[np.ndarray]], expected: list[list[np.ndarray]], index: int) -> float:
    """The largest gap of an output; NaN if any value is."""
    return float(np.max([gap(a[index], b[index]) for a, b in zip(found, expected, strict=True)]))


def _inputs(signature: Signature, size: tuple[int, int, int]) -> list[np.ndarray]:
    """Random images and, where the program takes one, a mask that removes every other patch."""
    images, *mask = signature.shapes(*size)
    arrays = [np.random.default_rng(0).normal(size=images).astype(np.float32)]
    return arrays + [(np.arange(np.prod(shape)) % 2).astype(np.float32).reshape(shape) for shape in mask]


def _moved(checkpoint: Checkpoint, eps: float) -> Checkpoint:
    """The checkpoint with every value moved up or down by a rounding error."""
    rng = np.random.default_rng(0)
    arrays = {name: np.asarray(array, np.float64) for name, array in checkpoint.arrays.items()}
    return replace(checkpoint, arrays={n: a * (1 + eps * rng.choice((-1, 1), a.shape)) for n, a in arrays.items()})
