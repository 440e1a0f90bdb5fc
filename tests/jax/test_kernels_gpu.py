"""The Pallas kernels for CUDA GPUs: interpreted on CPU, compared with the loops, and lowered for CUDA."""

import re
from functools import partial
from typing import Any

import numpy as np
import pytest

import backends
import spec
from parity_tests import tolerances
from parity_tests.strategies import CASES

if "jax" not in backends.installed():
    pytest.skip("jax is not installed", allow_module_level=True)

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from backends.jax import api, depthwise_cpu
from backends.jax import depthwise as forms
from backends.jax.kernels import depthwise_gpu
from backends.jax.layout import shapes
from backends.jax.space.patches import Layout, Neighbours, image_halo

CASE = CASES["equal widths"]
NAMES = ("convolution", "its transpose", "gradient by weight", "gradient by bias")

Arrays = tuple[jax.Array, ...]


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels run on CPU, in memory that holds NaN until it is written."""
    monkeypatch.setattr(pl, "pallas_call", partial(pl.pallas_call, interpret=True))


def neighbours(seed: int, images: int, grid: tuple[int, int], visible: int, side: int, size: int) -> Neighbours:
    """Where the patches of random masks lie."""
    ranks = np.random.default_rng(seed).random((images, grid[0] * grid[1])).argsort(1).argsort(1)
    layout = Layout.of(jnp.asarray(ranks >= visible).reshape(images, *grid), visible)
    return Neighbours(layout.halo(side, size // 2), layout.index, layout.slot)


def kernels(x: jax.Array, grad: jax.Array, weight: jax.Array, bias: jax.Array, halo: jax.Array) -> Arrays:
    """The convolution, its transpose and both gradients, by the kernels."""
    back = depthwise_gpu.transposed_conv(grad, weight, halo)
    return depthwise_gpu.conv(x, weight, bias, halo), back, *depthwise_gpu.gradients(x, grad, halo, len(weight))


@jax.jit
def loops(x: jax.Array, grad: jax.Array, weight: jax.Array, bias: jax.Array, where: Neighbours) -> Arrays:
    """The same by the loops of CPUs, in float32 at least."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    x, grad, weight, bias = (array.astype(wide) for array in (x, grad, weight, bias))
    back = depthwise_cpu.transposed_conv(grad, weight, where.halo)
    return (
        depthwise_cpu.conv(x, weight, bias, where.halo),
        back,
        *depthwise_cpu.gradients(x, grad, where.halo, len(weight)),
    )


def assert_agree(found: Arrays, expected: Arrays, dtype: str) -> None:
    bounds = [tolerances.forward(dtype, CASE)] * 2 + [tolerances.gradient(dtype, CASE)] * 2
    for name, ours, theirs, bound in zip(NAMES, found, expected, bounds, strict=True):
        tolerances.assert_close(ours, theirs, bound, name)


def draw(images: int, sites: int, channels: int, size: int, dtype: str) -> Arrays:
    """x, dy, weight and bias."""
    rng = np.random.default_rng(0)
    shapes = [(images, sites, channels)] * 2 + [(size, size, 1, channels), (channels,)]
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)


def check(images: int, grid: tuple[int, int], visible: int, side: int, channels: int, size: int, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        where = neighbours(side, images, grid, visible, side, size)
        arrays = draw(images, visible * side**2, channels, size, dtype)
        found = jax.jit(lambda *given: kernels(*given))(*arrays, where.halo)
        assert_agree(found, loops(*arrays, where), dtype)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    ("images", "grid", "visible", "side", "channels", "size", "dtype"),
    [
        (2, (2, 3), 4, 1, 130, 3, "bfloat16"),
        (2, (2, 2), 2, 2, 5, 7, "float64"),
        (1, (2, 2), 3, 6, 33, 3, "float32"),
        (1, (1, 2), 1, 11, 3, 1, "float32"),
    ],
)
def test_kernels_agree_with_loops(
    images: int, grid: tuple[int, int], visible: int, side: int, channels: int, size: int, dtype: str
) -> None:
    check(images, grid, visible, side, channels, size, dtype)


@pytest.mark.usefixtures("interpreted")
def test_a_sum_split_over_programs_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three programs share 21 blocks of runs and two share three: the last turns of some are empty."""
    monkeypatch.setattr(depthwise_gpu, "choose_tile", lambda *_, **__: depthwise_gpu.Tile(1, 32, 1))
    for programs in (9, 6):
        monkeypatch.setattr(depthwise_gpu, "PROGRAMS", programs)
        check(1, (3, 3), 5, 2, 3, 3, "float32")


@pytest.mark.usefixtures("interpreted")
def test_whole_images_are_blocks_of_sites() -> None:
    """Images that are not square, through `image_halo`, against XLA's own convolution."""
    x, grad, weight, bias = draw(2, 15, 4, 3, "float32")
    images = x.reshape(2, 3, 5, 4), grad.reshape(2, 3, 5, 4)
    expected, pullback = jax.vjp(forms._library, images[0], weight, bias)
    by_x, by_weight, by_bias = pullback(images[1])
    found = jax.jit(kernels)(x, grad, weight, bias, image_halo(images[0], 1))
    assert_agree(found, (expected.reshape(x.shape), by_x.reshape(x.shape), by_weight, by_bias), "float32")


@pytest.mark.usefixtures("interpreted")
def test_a_wrong_halo_is_seen() -> None:
    """Neighbours one column off."""
    where = neighbours(0, 2, (2, 2), 3, 2, 3)
    arrays = draw(2, 12, 4, 3, "float32")
    with pytest.raises(AssertionError, match="convolution: off by"):
        assert_agree(kernels(*arrays, jnp.roll(where.halo, 1, 2)), loops(*arrays, where), "float32")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize(("side", "channels"), [(8, 40), (1, 1024)])
def test_kernels_lower_for_cuda(side: int, channels: int, dtype: str, h200: None) -> None:
    """Triton's part of the compiler needs a GPU's build of jaxlib; everything before it is done here."""
    with jax.enable_x64(dtype == "float64"):
        shapes = [(4, 19 * side**2, channels)] * 2 + [(7, 7, 1, channels), (channels,)]
        given = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
        halo = jax.ShapeDtypeStruct((4 * 19, side + 6, side + 6), jnp.int32)
        lowered = jax.jit(kernels).trace(*given, halo).lower(lowering_platforms=("cuda",))
    assert lowered.as_text().count("__gpu$xla.gpu.triton") == 3


def test_a_model_lowers_for_cuda_with_its_kernels_and_without_strided_slices(h200: None) -> None:
    """XLA's GPU compiler (jax 0.11.2) aborts on strided slices of the sites to keep."""
    model = spec.fcmae(depths=(1, 1), dims=(8, 16), stem_stride=2, image_size=12, decoder_dim=8)
    params = {name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in shapes(model).items()}
    images, mask = jax.ShapeDtypeStruct((2, 12, 12, 3), "float32"), jax.ShapeDtypeStruct((2, 3, 3), "uint8")

    def calls(engine: str, kernels: str, dtype: str = "float32") -> int:
        graph = api.graph(model, dtype)

        def gradients(params: Any, images: Any, mask: Any) -> Any:
            options = {"engine": engine, "visible": 3, "kernels": kernels, "platform": "gpu"}
            return jax.grad(lambda p: api.bind(graph, p)(images, mask, **options)["loss"])(params)

        text = jax.jit(gradients).trace(params, images, mask).lower(lowering_platforms=("cuda",)).as_text()
        assert not re.search(r"stablehlo.slice .*\d:\d+:[2-9]", text)
        return text.count("__gpu$xla.gpu.triton")

    encoder, decoder = 2, 1
    blocks = encoder + decoder
    assert calls("visible", "auto") == calls("masked", "auto") == 3 * blocks
    assert calls("visible", "plain") == calls("masked", "plain") == 0
    assert calls("visible", "auto", "bfloat16") == (3 + 4) * blocks
    assert calls("masked", "auto", "bfloat16") == 3 * blocks + 4 * decoder
