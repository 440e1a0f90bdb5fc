"""The depthwise convolution: on visible patches, and on whole images for CUDA.

TPUs and CUDA GPUs have kernels that read and write visible sites only (`kernels/`). Other GPUs
convolve on the grid: the patches are laid out, convolved with one grouped convolution and picked up
again. On CPU, where the convolution is slow, loops read the sites through their halos.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from backends.jax.kernels import Kernels, depthwise_gpu, depthwise_tpu
from backends.jax.norm import at_least_float32
from backends.jax.space.patches import Neighbours, gather, image_halo, scatter

Form = Callable[..., Array]
Pair = tuple[Array, Array]


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def visible_conv(x: Array, weight: Array, bias: Array, where: Neighbours, kernels: Kernels = None) -> Array:
    """Depthwise convolution of x (N, K * P * P, C) with weight (k, k, 1, C) and bias (C,).

    kernels: the platform whose Pallas kernels to use when it is the one compiled for; None: none.
    """
    return _conv(x, weight, bias, where, kernels)


def _forward(
    x: Array, weight: Array, bias: Array, where: Neighbours, kernels: Kernels
) -> tuple[Array, tuple[Array, Array, Neighbours]]:
    return _conv(x, weight, bias, where, kernels), (x, weight, where)


def _backward(
    kernels: Kernels, saved: tuple[Array, Array, Neighbours], grad: Array
) -> tuple[Array, Array, Array, None]:
    """dx = conv of dy with the kernel turned by 180 degrees; dw = x, convolved with dy; db = the sum of dy."""
    x, weight, where = saved
    by_weight, by_bias = _gradients(x, grad, where, len(weight), kernels)
    by_x = _transposed_conv(grad, weight, where, kernels)
    return by_x, by_weight.astype(weight.dtype), by_bias.astype(weight.dtype), None


visible_conv.defvjp(_forward, _backward)


def _conv(x: Array, weight: Array, bias: Array, where: Neighbours, kernels: Kernels) -> Array:
    def plain(form: Form) -> Form:
        return lambda x, weight, bias, where: form(x, weight, where) + bias

    def cuda(x: Array, weight: Array, bias: Array, where: Neighbours) -> Array:
        return depthwise_gpu.conv(x, weight, bias, where.halo)

    forms = {"cpu": plain(_scanned_conv), "tpu": plain(depthwise_tpu.conv), "cuda": cuda, "default": plain(_grid_conv)}
    return lax.platform_dependent(x, weight, bias, where, **_used(forms, kernels))


def _transposed_conv(grad: Array, weight: Array, where: Neighbours, kernels: Kernels) -> Array:
    def plain(form: Form) -> Form:
        return lambda grad, weight, where: form(grad, weight[::-1, ::-1], where)

    def cuda(grad: Array, weight: Array, where: Neighbours) -> Array:
        return depthwise_gpu.transposed_conv(grad, weight, where.halo)

    forms = {"cpu": plain(_scanned_conv), "tpu": plain(depthwise_tpu.conv), "cuda": cuda, "default": plain(_grid_conv)}
    return lax.platform_dependent(grad, weight, where, **_used(forms, kernels))


def _gradients(x: Array, grad: Array, where: Neighbours, size: int, kernels: Kernels) -> Pair:
    """dw (k, k, 1, C) and db (C,), in float32 at least."""

    def plain(form: Form) -> Callable[..., Pair]:
        def both(x: Array, grad: Array, where: Neighbours) -> Pair:
            return at_least_float32(form(x, grad, where, size=size)), at_least_float32(grad).sum((0, 1))

        return both

    def cuda(x: Array, grad: Array, where: Neighbours) -> Pair:
        return depthwise_gpu.gradients(x, grad, where.halo, size)

    forms = {
        "cpu": plain(_scanned_gradient),
        "tpu": plain(depthwise_tpu.weight_gradient),
        "cuda": cuda,
        "default": plain(_grid_gradient),
    }
    return lax.platform_dependent(x, grad, where, **_used(forms, kernels))


def _used(forms: dict[str, Any], kernels: Kernels) -> dict[str, Any]:
    """The plain forms, and the kernels of one platform: all that are given are traced, which takes a second each."""
    return {platform: form for platform, form in forms.items() if platform in ("cpu", "default", kernels)}


@jax.custom_vjp
def image_conv(x: Array, weight: Array, bias: Array) -> Array:
    """Depthwise convolution of images x (N, H, W, C) with weight (k, k, 1, C) and bias (C,), by the kernel on CUDA."""

    def cuda(x: Array, weight: Array, bias: Array) -> Array:
        return depthwise_gpu.conv(_sites(x), weight, bias, image_halo(x, len(weight) // 2)).reshape(x.shape)

    return lax.platform_dependent(x, weight, bias, cuda=cuda, default=_library)


def _image_forward(x: Array, weight: Array, bias: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return image_conv(x, weight, bias), (x, weight, bias)


def _image_backward(saved: tuple[Array, Array, Array], grad: Array) -> tuple[Array, Array, Array]:
    def cuda(grad: Array, x: Array, weight: Array, bias: Array) -> tuple[Array, Array, Array]:
        halo = image_halo(x, len(weight) // 2)
        by_x = depthwise_gpu.transposed_conv(_sites(grad), weight, halo).reshape(x.shape)
        by_weight, by_bias = depthwise_gpu.gradients(_sites(x), _sites(grad), halo, len(weight))
        return by_x, by_weight.astype(weight.dtype), by_bias.astype(bias.dtype)

    def library(grad: Array, *arrays: Array) -> tuple[Array, Array, Array]:
        return jax.vjp(_library, *arrays)[1](grad)

    return lax.platform_dependent(grad, *saved, cuda=cuda, default=library)


image_conv.defvjp(_image_forward, _image_backward)


def _library(x: Array, weight: Array, bias: Array) -> Array:
    return _library_conv(x, weight) + bias


def _sites(x: Array) -> Array:
    """(N, H, W, C) -> (N, H * W, C)."""
    return x.reshape(len(x), -1, x.shape[-1])


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
    """One patch at a time, for all images at once: its tile, shifted to each site, times the gradient there.

    Patches of up to 2 x 2 sites are done one site at a time: XLA does not vectorise a sum of four products.
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
    """x as rows, followed by a row of zeros for indices past the end."""
    return jnp.pad(x.reshape(-1, x.shape[-1]), ((0, 1), (0, 0)))
