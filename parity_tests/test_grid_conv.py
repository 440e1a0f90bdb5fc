"""The depthwise convolution for accelerators computes the same as the loops for CPUs; no other CPU test runs it."""

import numpy as np
import pytest

import backends
from parity_tests import tolerances
from parity_tests.strategies import CASES

if "jax" not in backends.installed():
    pytest.skip("jax is not installed", allow_module_level=True)

import jax

from backends.jax import api, depthwise
from backends.jax.space.patches import Layout, Neighbours

CASE = CASES["equal widths"]


@pytest.mark.parametrize("side", [1, 2, 4])
def test_both_forms_agree(side: int) -> None:
    rng = np.random.default_rng(side)
    with api.precision("float64"):
        layout = Layout.of(jax.numpy.asarray(CASE.mask), CASE.visible)
        where = Neighbours(layout.halo(side, 3), layout.index, layout.slot)
        x, dy = rng.normal(size=(2, CASE.count, CASE.visible * side**2, 3))
        weight = rng.normal(size=(7, 7, 1, 3))
        pairs = {
            "convolution": (depthwise._grid_conv(x, weight, where), depthwise._scanned_conv(x, weight, where)),
            "gradient": (depthwise._grid_gradient(x, dy, where, 7), depthwise._scanned_gradient(x, dy, where, 7)),
        }
    for name, (grid, loops) in pairs.items():
        tolerances.assert_close(grid, loops, tolerances.gradient("float64", CASE), f"{name}, side {side}")
