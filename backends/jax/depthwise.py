"""The depthwise convolution on visible patches.

GPUs convolve on the grid: the patches are laid out, convolved with one grouped convolution and
picked up again. TPUs have a kernel that reads and writes visible sites only (`kernels/`). On CPU,
where the convolution is slow, loops read the sites through their halos.
"""

import math
import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from backends.jax.kernels import depthwise as kernels
from backends.jax.kernels import depthwise_gpu

Form = Callable[..., Array]

TPUS = find_spec("libtpu") is not None or "TPU_LIBRARY_PATH" in os.environ
"""Whether the compiler of TPUs is here, as it is beside every TPU."""


class Neighbours(NamedTuple):
    """Where the visible patches lie, for each form; a compiler drops what its own does not read."""

    halo: Array  # N * K, Q, Q, as `Layout.halo`
    kept: Array  # N K, as `Layout.index`
    slot: Array  # N G_h G_w, as `Layout.slot`


def side_of(x: Array, visible: int) -> int:
    """P, the sites along a patch, of x (N, K * P * P, C)."""
    return math.isqrt(x.shape[1] // visible)


def gather(grid: Array, index: Array, patches: tuple[int, ...]) -> Array:
    """The visible sites (N, K * P * P, C) of a grid (N, G_h * P, G_w * P, C); patches are (G_h, G_w)."""
    images, height, _, channels = grid.shape
    rows, columns = patches
    side = height // rows
    every = grid.reshape(images, rows, side, columns, side, channels).swapaxes(2, 3)
    every = every.reshape(images, rows * columns, side, side, channels)
    return _taken(every, index).reshape(images, -1, channels)


def scatter(x: Array, slot: Array, visible: int, empty: Array | int = 0) -> Array:
    """Visible sites (N, K * P * P, C) on their grid (N, G_h * P, G_w * P, C), with `empty` (C,) at removed sites."""
    images, _, channels = x.shape
    rows, columns = slot.shape[1:]
    side = side_of(x, visible)
    slot = slot.reshape(images, -1)
    every = _taken(x.reshape(images, visible, side, side, channels), jnp.minimum(slot, visible - 1))
    every = jnp.where((slot < visible)[:, :, None, None, None], every, jnp.asarray(empty, x.dtype))
    grid = every.reshape(images, rows, columns, side, side, channels).swapaxes(2, 3)
    return grid.reshape(images, rows * side, columns * side, channels)


def _taken(patches: Array, index: Array) -> Array:
    """Patches (N, J, P, P, C) of patches (N, I, P, P, C), by their numbers (N, J), which are all below I."""
    return jnp.take_along_axis(patches, index[:, :, None, None, None], 1, mode="promise_in_bounds")


@jax.custom_vjp
def visible_conv(x: Array, weight: Array, bias: Array, where: Neighbours) -> Array:
    """Depthwise convolution of x (N, K * P * P, C) with weight (k, k, 1, C) and bias (C,)."""
    return _conv(x, weight, bias, where)


def _forward(x: Array, weight: Array, bias: Array, where: Neighbours) -> tuple[Array, tuple[Array, Array, Neighbours]]:
    return _conv(x, weight, bias, where), (x, weight, where)


def _backward(saved: tuple[Array, Array, Neighbours], grad: Array) -> tuple[Array, Array, Array, None]:
    """dx = conv of dy with the kernel turned by 180 degrees; dw = x, convolved with dy; db = the sum of dy."""
    x, weight, where = saved
    by_weight, by_bias = _gradients(x, grad, where, len(weight))
    return _transposed_conv(grad, weight, where), by_weight.astype(weight.dtype), by_bias.astype(weight.dtype), None


visible_conv.defvjp(_forward, _backward)


def _conv(x: Array, weight: Array, bias: Array, where: Neighbours) -> Array:
    def plain(form: Form) -> Form:
        return lambda x, weight, bias, where: form(x, weight, where) + bias

    def kernel(x: Array, weight: Array, bias: Array, where: Neighbours) -> Array:
        return depthwise_gpu.conv(x, weight, bias, where.halo)

    forms = _forms(plain(_scanned_conv), plain(kernels.conv), kernel, plain(_grid_conv))
    return lax.platform_dependent(x, weight, bias, where, **forms)


def _transposed_conv(grad: Array, weight: Array, where: Neighbours) -> Array:
    def plain(form: Form) -> Form:
        return lambda grad, weight, where: form(grad, weight[::-1, ::-1], where)

    def kernel(grad: Array, weight: Array, where: Neighbours) -> Array:
        nothing = jnp.zeros(grad.shape[-1:], grad.dtype)
        return depthwise_gpu.conv(grad, weight, nothing, where.halo, transposed=True)

    forms = _forms(plain(_scanned_conv), plain(kernels.conv), kernel, plain(_grid_conv))
    return lax.platform_dependent(grad, weight, where, **forms)


def _gradients(x: Array, grad: Array, where: Neighbours, size: int) -> tuple[Array, Array]:
    """dw (k, k, 1, C) and db (C,)."""

    def plain(form: Form) -> Callable[..., tuple[Array, Array]]:
        def both(x: Array, grad: Array, where: Neighbours) -> tuple[Array, Array]:
            wide = jnp.promote_types(x.dtype, jnp.float32)
            return form(x, grad, where, size=size).astype(wide), grad.astype(wide).sum((0, 1))

        return both

    def kernel(x: Array, grad: Array, where: Neighbours) -> tuple[Array, Array]:
        return depthwise_gpu.gradients(x, grad, where.halo, size)

    forms = _forms(plain(_scanned_gradient), plain(kernels.weight_gradient), kernel, plain(_grid_gradient))
    return lax.platform_dependent(x, grad, where, **forms)


def _forms(cpu: Any, tpu: Any, cuda: Any, default: Any) -> dict[str, Any]:
    """By platform; all are traced, so those of accelerators only where they are or their compiler is."""
    forms = {"cpu": cpu, "default": default}
    if TPUS:
        forms["tpu"] = tpu
    if jax.default_backend() == "gpu":
        forms["cuda"] = cuda
    return forms


def _grid_conv(x: Array, weight: Array, where: Neighbours) -> Array:
    return gather(_library_conv(_laid_out(x, where), weight), where.kept, where.slot.shape[1:])


def _grid_gradient(x: Array, grad: Array, where: Neighbours, size: int) -> Array:
    grid = _laid_out(x, where)
    start = jnp.zeros((size, size, 1, x.shape[-1]), x.dtype)
    _, pullback = jax.vjp(lambda weight: _library_conv(grid, weight), start)
    return pullback(_laid_out(grad, where))[0]


def _laid_out(x: Array, where: Neighbours) -> Array:
    return scatter(x, where.slot, where.kept.shape[1])


def _library_conv(grid: Array, weight: Array) -> Array:
    dims = ("NHWC", "HWIO", "NHWC")
    groups = weight.shape[-1]
    return lax.conv_general_dilated(grid, weight, (1, 1), "SAME", dimension_numbers=dims, feature_group_count=groups)


def _scanned_conv(x: Array, weight: Array, where: Neighbours) -> Array:
    """One gather and multiply-add a kernel offset; XLA's grouped conv is 20 times slower on CPU.

    A loop, since XLA tears the unrolled sum apart when a norm follows: it wrote out every shifted tile.
    """
    halo, k = where.halo, weight.shape[0]
    side = halo.shape[1] - k + 1
    shifts = jnp.stack([halo[:, i : i + side, j : j + side] for i in range(k) for j in range(k)])
    rows = _rows(x)

    def add(y: Array, offset: tuple[Array, Array]) -> tuple[Array, None]:
        shift, factor = offset
        return y + rows[shift] * factor, None

    start = jnp.zeros((len(halo), side, side, x.shape[-1]), x.dtype)
    return lax.scan(add, start, (shifts, weight.reshape(k * k, -1)))[0].reshape(x.shape)


def _scanned_gradient(x: Array, grad: Array, where: Neighbours, size: int) -> Array:
    """A patch at a time, of all images at once: its tile, shifted to each site, times the gradient there.

    Patches of up to 2 x 2 sites go a site at a time: XLA leaves a sum of four products scalar.
    """
    halo, k, (images, _, channels) = where.halo, size, grad.shape
    side = halo.shape[1] - k + 1
    step = side if side > 2 else 1
    reach = k + step - 1
    tiles = [halo[:, p : p + reach, q : q + reach] for p in range(0, side, step) for q in range(0, side, step)]
    indices = jnp.stack(tiles, 1).reshape(images, -1, reach, reach).swapaxes(0, 1)
    grads = grad.reshape(images, -1, step, step, channels).swapaxes(0, 1)
    rows = _rows(x)

    def add(dw: Array, patch: tuple[Array, Array]) -> tuple[Array, None]:
        index, grad = patch
        tile = rows[index]
        sites = [(p, q) for p in range(step) for q in range(step)]
        return dw + sum(tile[:, p : p + k, q : q + k] * grad[:, p : p + 1, q : q + 1] for p, q in sites), None

    start = jnp.zeros((images, k, k, channels), x.dtype)
    return lax.scan(add, start, (indices, grads))[0].sum(0)[:, :, None]


def _rows(x: Array) -> Array:
    """The sites of x one below the other, and a row of zeros for entries of a halo that name none."""
    return jnp.pad(x.reshape(-1, x.shape[-1]), ((0, 1), (0, 0)))
