"""The forms of JAX's depthwise convolution compute the same: the grid's, which only accelerators use, and CPU's."""

import numpy as np
import pytest

import backends
from parity_tests import tolerances
from parity_tests.strategies import CASES

if "jax" not in backends.installed():
    pytest.skip("jax is not installed", allow_module_level=True)

import jax

from backends.jax import api, depthwise, depthwise_cpu
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
        turned = depthwise_cpu.transposed_conv(x, weight[::-1, ::-1], where.halo)
        pairs = {
            "convolution": (depthwise._grid_conv(x, weight, where), turned),
            "gradient": (depthwise._grid_gradient(x, dy, where, 7), depthwise_cpu.gradients(x, dy, where.halo, 7)[0]),
        }
    for name, (grid, loops) in pairs.items():
        tolerances.assert_close(grid, loops, tolerances.gradient("float64", CASE), f"{name}, side {side}")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (6, 20), (17, 3), (16, 16)])
def test_whole_images_agree(height: int, width: int) -> None:
    """Sides that are divided into tiles, and sides that cannot be."""
    rng = np.random.default_rng(0)
    with api.precision("float64"):
        x, dy = rng.normal(size=(2, 2, height, width, 3))
        arrays = x, rng.normal(size=(7, 7, 1, 3)), rng.normal(size=3)
        found, expected = (_with_gradients(form, arrays, dy) for form in (depthwise.image_conv, depthwise._library))
    tolerances.assert_all_close(found, expected, tolerances.gradient("float64", CASE), f"{height} x {width}")


def _with_gradients(form: depthwise.Form, arrays: tuple[np.ndarray, ...], dy: np.ndarray) -> dict[str, np.ndarray]:
    y, pullback = jax.vjp(form, *arrays)
    return dict(zip(("y", "x", "weight", "bias"), (y, *pullback(dy)), strict=True))
