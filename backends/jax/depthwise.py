"""The depthwise convolution on visible patches.

GPUs convolve on the grid: the patches are laid out, convolved with one grouped convolution and
picked up again. TPUs have a kernel that reads and writes visible sites only (`kernels/`). On CPU,
where the convolution is slow, loops read the sites through their halos.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from backends.jax.kernels import depthwise as pallas
from backends.jax.space.patches import Neighbours, gather, scatter

Form = Callable[..., Array]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def visible_conv(x: Array, weight: Array, where: Neighbours, kernels: bool = False) -> Array:
    """Depthwise convolution of x (N, K * P * P, C) with weight (k, k, 1, C).

    kernels: by the Pallas kernels where the platform is a TPU.
    """
    return _conv(x, weight, where, kernels)


def _forward(
    x: Array, weight: Array, where: Neighbours, kernels: bool
) -> tuple[Array, tuple[Array, Array, Neighbours]]:
    return _conv(x, weight, where, kernels), (x, weight, where)


def _backward(kernels: bool, saved: tuple[Array, Array, Neighbours], grad: Array) -> tuple[Array, Array, None]:
    """dx = conv of dy with the kernel turned by 180 degrees; dw = x, convolved with dy."""
    x, weight, where = saved
    return (
        _conv(grad, weight[::-1, ::-1], where, kernels),
        _weight_gradient(x, grad, where, len(weight), kernels).astype(weight.dtype),
        None,
    )


visible_conv.defvjp(_forward, _backward)


def _conv(x: Array, weight: Array, where: Neighbours, kernels: bool) -> Array:
    return lax.platform_dependent(x, weight, where, **_forms(_scanned_conv, pallas.conv, _grid_conv, kernels))


def _weight_gradient(x: Array, grad: Array, where: Neighbours, size: int, kernels: bool) -> Array:
    """dw (k, k, 1, C) in the dtype of x."""
    scanned, tpu, grid = (
        partial(form, size=size) for form in (_scanned_gradient, pallas.weight_gradient, _grid_gradient)
    )
    return lax.platform_dependent(x, grad, where, **_forms(scanned, tpu, grid, kernels))


def _forms(cpu: Form, tpu: Form, default: Form, kernels: bool) -> dict[str, Form]:
    """By platform. All are traced: the TPU's, which takes a second, only where it is chosen."""
    return {"cpu": cpu, "default": default} | ({"tpu": tpu} if kernels else {})


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
    """One gather and multiply-add per kernel offset; XLA's grouped convolution is 20 times slower on CPU.

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
