"""The Pallas kernels for TPUs, interpreted on CPU and compared with the loops, and compiled for a TPU."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backends
from parity_tests import tolerances
from parity_tests.strategies import CASES

if "jax" not in backends.installed():
    pytest.skip("jax is not installed", allow_module_level=True)

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.sharding import SingleDeviceSharding

from backends.jax import depthwise as forms
from backends.jax import depthwise_cpu
from backends.jax.kernels import depthwise_tpu, plan
from backends.jax.space.patches import Layout, Neighbours
from benchmarks import tpu

CASE = CASES["equal widths"]

Arrays = tuple[jax.Array, jax.Array]


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels run on CPU, in memory that holds NaN until it is written."""
    monkeypatch.setattr(pl, "pallas_call", partial(pl.pallas_call, interpret=True))


def masks(rng: np.random.Generator, images: int, grid: tuple[int, int], visible: int) -> np.ndarray:
    """Masks, 1 where removed, with `visible` patches kept of each image."""
    ranks = rng.random((images, grid[0] * grid[1])).argsort(1).argsort(1)
    return (ranks >= visible).reshape(images, *grid).astype(np.uint8)


@partial(jax.jit, static_argnums=(1, 2, 3))
def where_of(mask: jax.Array, visible: int, side: int, size: int) -> Neighbours:
    layout = Layout.of(mask, visible)
    return Neighbours(layout.halo(side, size // 2), layout.index, layout.slot)


def kernels(x: jax.Array, grad: jax.Array, weight: jax.Array, where: Neighbours) -> Arrays:
    """The convolution of x and the gradient by weight, by the kernels."""
    return depthwise_tpu.conv(x, weight, where), depthwise_tpu.weight_gradient(x, grad, where, len(weight))


def kernels_compiled() -> Callable[..., Arrays]:
    """The kernels as they are patched now: jit would remember a function by its identity."""
    return jax.jit(lambda *arrays: kernels(*arrays))


@jax.jit
def loops(x: jax.Array, grad: jax.Array, weight: jax.Array, where: Neighbours) -> Arrays:
    """The same by the loops of CPUs, in float32."""
    x, grad, weight = (array.astype(jnp.float32) for array in (x, grad, weight))
    none = jnp.zeros(x.shape[-1])
    return depthwise_cpu.conv(x, weight, none, where.halo), depthwise_cpu.gradients(x, grad, where.halo, len(weight))[0]


def assert_agree(found: Arrays, expected: Arrays, dtype: str) -> None:
    bounds = tolerances.forward(dtype, CASE), tolerances.gradient(dtype, CASE)
    for name, ours, theirs, bound in zip(("convolution", "gradient"), found, expected, bounds, strict=True):
        assert ours.dtype == dtype
        tolerances.assert_close(ours, theirs, bound, name)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    ("images", "grid", "visible", "side", "channels", "size", "dtype"),
    [
        (3, (3, 2), 4, 1, 5, 7, "float32"),
        (2, (2, 3), 6, 1, 130, 3, "bfloat16"),
        (3, (2, 4), 3, 2, 8, 7, "float32"),
        (2, (1, 3), 1, 2, 130, 3, "bfloat16"),
        (2, (2, 3), 3, 4, 8, 3, "float32"),
        (1, (3, 2), 2, 4, 130, 7, "bfloat16"),
    ],
)
def test_kernels_agree_with_loops(
    images: int, grid: tuple[int, int], visible: int, side: int, channels: int, size: int, dtype: str
) -> None:
    rng = np.random.default_rng(side)
    where = where_of(masks(rng, images, grid, visible), visible, side, size)
    x, grad = (jnp.asarray(rng.normal(size=(images, visible * side**2, channels)), dtype) for _ in range(2))
    weight = jnp.asarray(rng.normal(size=(size, size, 1, channels)), dtype)
    assert_agree(kernels_compiled()(x, grad, weight, where), loops(x, grad, weight, where), dtype)


@pytest.mark.usefixtures("interpreted")
def test_kernels_agree_on_any_mask_and_in_blocks_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three images, two per program: the last program has one, and must not read a second."""
    visible, side, size, grid = 3, 2, 3, (3, 3)
    monkeypatch.setattr(plan, "SITES", 2 * visible * side**2)
    again = kernels_compiled()

    @given(st.integers(0, 2**32 - 1))
    def agree(seed: int) -> None:
        rng = np.random.default_rng(seed)
        where = where_of(masks(rng, 3, grid, visible), visible, side, size)
        x, grad = jnp.asarray(rng.normal(size=(2, 3, visible * side**2, 4)), jnp.float32)
        weight = jnp.asarray(rng.normal(size=(size, size, 1, 4)), jnp.float32)
        assert_agree(again(x, grad, weight, where), loops(x, grad, weight, where), "float32")

    agree()


@pytest.mark.usefixtures("interpreted")
def test_a_canvas_too_narrow_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a border between its rows, the right edge of an image sees the left one."""
    monkeypatch.setattr(plan.Plan, "width", property(lambda self: self.grid[1] * self.side))
    rng = np.random.default_rng(0)
    where = where_of(masks(rng, 1, (2, 2), 4), 4, 1, 3)
    x, grad = jnp.asarray(rng.normal(size=(2, 1, 4, 2)), jnp.float32)
    weight = jnp.asarray(rng.normal(size=(3, 3, 1, 2)), jnp.float32)
    with pytest.raises(AssertionError, match="convolution: off by"):
        assert_agree(kernels_compiled()(x, grad, weight, where), loops(x, grad, weight, where), "float32")


def bytes_moved(form: Callable[..., Arrays], *shapes: tuple[tuple[int, ...], str]) -> float:
    """The bytes that a form of both reads and writes on a v5e, for the shapes of x, dy, weight and mask."""
    there = SingleDeviceSharding(tpu.devices("v5e:2x2")[0])

    def run(x: jax.Array, grad: jax.Array, weight: jax.Array, mask: jax.Array) -> Arrays:
        layout = Layout.of(mask, 19)
        return form(x, grad, weight, Neighbours(jnp.zeros(()), layout.index, layout.slot))

    given = [jax.ShapeDtypeStruct(shape, dtype, sharding=there) for shape, dtype in shapes]
    return float(jax.jit(run).trace(*given).lower().compile().cost_analysis()["bytes accessed"])


def grid_forms(x: jax.Array, grad: jax.Array, weight: jax.Array, where: Neighbours) -> Arrays:
    return forms._grid_conv(x, weight, where), forms._grid_gradient(x, grad, where, len(weight))


@pytest.mark.aot
@pytest.mark.skipif(not find_spec("libtpu"), reason="libtpu is not installed (make aot)")
@pytest.mark.parametrize(("side", "channels"), [(8, 40), (4, 256), (2, 160), (1, 1024)])
def test_kernels_move_less_than_the_grid(side: int, channels: int) -> None:
    """The convolution and its weight gradient, 8 images of which 19 of 49 patches are seen, with all copies."""
    shapes = [((8, 19 * side**2, channels), "bfloat16")] * 2
    shapes += [((7, 7, 1, channels), "bfloat16"), ((8, 7, 7), "uint8")]
    grid, ours = (bytes_moved(form, *shapes) for form in (grid_forms, kernels))
    print(f"\nside {side}, {channels} channels: grid {grid / 1e6:.1f} MB, kernels {ours / 1e6:.1f}")
    assert ours < grid
