"""How far two computations of one thing may lie apart, and the only assertions that say so.

No other file of the suite holds a tolerance (`test_tolerances.py` sees to it). Errors are
relative to the largest entry of what was expected. k steps round k times, at random, so
errors grow as eps * sqrt(k); an input that a rounding of eps can move by a factor more
(`Case.condition`) is allowed that factor. The constants in front were measured against the
float64 oracle on 400 random cases in torch, masked and visible, of 6 channels and more; the
strategies now draw 8 and more, which are better conditioned.
"""

from collections.abc import Mapping

import numpy as np

from parity_tests.strategies import Case

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-8}
"""The unit of rounding; bfloat16 keeps 8 bits."""

FORWARD = 4.0  # worst seen in float64, float32, bfloat16: 2.7, 3.8, 3.8
GRADIENT = {"float64": 32.0, "float32": 32.0, "bfloat16": 16.0}  # worst seen: 16.5, 16.4, 9.9

GOLDEN = 1e-5
"""Published float32 results against float32: gradients there were seen 2e-6 from the oracle's."""

TRAJECTORY = {"float64": 1e-9, "float32": 2e-4}
"""Fifty updates: AdamW divides by gradients near zero, so a rounding there grows to the size of the rate."""

LOSSES = 1.0
"""Seen over 200 updates of the digits run, against float64: 0.11 in torch, 0.38 in JAX."""

DOWN_EPS = 1e-5
"""An epsilon of 1e-5 for 1e-6 in the norms before downsampling, relative in L2; seen: 2.9e-6."""

GELU = 1e-4
"""Of bfloat16's GELU before it is rounded, down to values of 1e-4; of its slope, beside 1. Seen: 8.9e-5, 2.6e-5."""

GREY_LEVEL = 1 / 255
"""Of 8-bit pixels as parts of 1: an image and its mask are rounded apart."""

FLOPS = 0.03
"""XLA's count of blocks side by side against ours of a loop, which leaves GELU out; seen: 0.012."""


def forward(dtype: str, case: Case) -> float:
    """The bound for outputs and intermediates."""
    return FORWARD * EPS[dtype] * case.steps**0.5 * case.condition


def gradient(dtype: str, case: Case) -> float:
    """The bound for gradients, and for what one update makes of them."""
    return GRADIENT[dtype] * EPS[dtype] * case.steps**0.5 * case.condition


def losses(dtype: str, updates: int) -> float:
    """The bound for the loss of each of some updates, relative to itself: an update rounds once more."""
    return LOSSES * EPS[dtype] * updates**0.5


def gap(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest error relative to the largest entry expected; infinite where shapes, NaNs or exact zeros differ."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape or not np.array_equal(np.isfinite(found), np.isfinite(expected)):
        return np.inf
    finite = np.isfinite(expected)
    error, scale = _largest(np.where(finite, found - expected, 0)), _largest(np.where(finite, expected, 0))
    return error / scale if scale else (np.inf if error else 0.0)


def assert_close(found: np.ndarray, expected: np.ndarray, bound: float, what: str) -> None:
    """AssertionError of one line unless `found` lies within `bound` of `expected`."""
    off = gap(found, expected)
    kinds = f"{_kind(found)} for {_kind(expected)}"
    assert off <= bound, f"{what}: off by {off:.2e} of the largest entry, {bound:.2e} allowed ({kinds})"


def assert_all_close(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], bound: float, what: str
) -> None:
    """The same for all of `expected`, in its order: the first name reported is the first that diverges."""
    unequal = sorted(found.keys() ^ expected.keys())
    assert not unequal, f"{what}: only one side has {', '.join(unequal)}"
    for name, array in expected.items():
        assert_close(found[name], array, bound, f"{what}, {name}")


def assert_same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], what: str) -> None:
    """AssertionError unless all is bit for bit the same."""
    assert found.keys() == expected.keys(), what
    for name, array in expected.items():
        same = found[name].dtype == array.dtype and found[name].tobytes() == array.tobytes()
        assert same, f"{what}, {name}: not the same bits ({_kind(found[name])} for {_kind(array)})"


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0.0))


def _kind(values: np.ndarray) -> str:
    return f"{np.asarray(values).dtype}{np.shape(values)}"
