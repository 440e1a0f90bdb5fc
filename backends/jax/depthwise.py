"""The depthwise convolution: on visible patches, and on whole images.

TPUs have kernels that read and write visible sites only; CUDA GPUs have some for both (`kernels/`).
Other GPUs convolve on the grid: the patches are laid out, convolved with one grouped convolution and
picked up again. CPUs, where that convolution is slow, have forms of their own (`depthwise_cpu`).
"""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from backends.jax import depthwise_cpu
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

    def haloed(forms: ModuleType) -> Form:
        return lambda x, weight, bias, where: forms.conv(x, weight, bias, where.halo)

    forms = {"tpu": plain(depthwise_tpu.conv), "default": plain(_grid_conv)}
    return lax.platform_dependent(x, weight, bias, where, **_used(forms, haloed, kernels))


def _transposed_conv(grad: Array, weight: Array, where: Neighbours, kernels: Kernels) -> Array:
    def plain(form: Form) -> Form:
        return lambda grad, weight, where: form(grad, weight[::-1, ::-1], where)

    def haloed(forms: ModuleType) -> Form:
        return lambda grad, weight, where: forms.transposed_conv(grad, weight, where.halo)

    forms = {"tpu": plain(depthwise_tpu.conv), "default": plain(_grid_conv)}
    return lax.platform_dependent(grad, weight, where, **_used(forms, haloed, kernels))


def _gradients(x: Array, grad: Array, where: Neighbours, size: int, kernels: Kernels) -> Pair:
    """dw (k, k, 1, C) and db (C,), in float32 at least."""

    def plain(form: Form) -> Callable[..., Pair]:
        def both(x: Array, grad: Array, where: Neighbours) -> Pair:
            return at_least_float32(form(x, grad, where, size=size)), at_least_float32(grad).sum((0, 1))

        return both

    def haloed(forms: ModuleType) -> Callable[..., Pair]:
        return lambda x, grad, where: forms.gradients(x, grad, where.halo, size)

    forms = {"tpu": plain(depthwise_tpu.weight_gradient), "default": plain(_grid_gradient)}
    return lax.platform_dependent(x, grad, where, **_used(forms, haloed, kernels))


def _used(forms: dict[str, Any], haloed: Callable[[ModuleType], Any], kernels: Kernels) -> dict[str, Any]:
    """The plain forms, CPU's, and the kernels of one platform: all are traced, which takes a second each."""
    forms = forms | {"cpu": haloed(depthwise_cpu), "cuda": haloed(depthwise_gpu)}
    return {platform: form for platform, form in forms.items() if platform in ("cpu", "default", kernels)}


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def image_conv(x: Array, weight: Array, bias: Array, kernels: Kernels = None) -> Array:
    """Depthwise convolution of images x (N, H, W, C) with weight (k, k, 1, C) and bias (C,).

    By the kernel on CUDA, if kernels say so; by loops on CPU; by XLA's convolution elsewhere.
    """

    def haloed(forms: ModuleType) -> Form:
        return lambda x, weight, bias: forms.conv(_sites(x), weight, bias, _halo(x, weight)).reshape(x.shape)

    return lax.platform_dependent(x, weight, bias, **_used({"default": _library}, haloed, kernels))


def _image_forward(x: Array, weight: Array, bias: Array, kernels: Kernels) -> tuple[Array, tuple[Array, Array, Array]]:
    return image_conv(x, weight, bias, kernels), (x, weight, bias)


def _image_backward(kernels: Kernels, saved: tuple[Array, Array, Array], grad: Array) -> tuple[Array, Array, Array]:
    def haloed(forms: ModuleType) -> Callable[..., tuple[Array, Array, Array]]:
        def all_(grad: Array, x: Array, weight: Array, bias: Array) -> tuple[Array, Array, Array]:
            halo = _halo(x, weight)
            by_x = forms.transposed_conv(_sites(grad), weight, halo).reshape(x.shape)
            by_weight, by_bias = forms.gradients(_sites(x), _sites(grad), halo, len(weight))
            return by_x, by_weight.astype(weight.dtype), by_bias.astype(bias.dtype)

        return all_

    def library(grad: Array, *arrays: Array) -> tuple[Array, Array, Array]:
        return jax.vjp(_library, *arrays)[1](grad)

    return lax.platform_dependent(grad, *saved, **_used({"default": library}, haloed, kernels))


image_conv.defvjp(_image_forward, _image_backward)


def _halo(x: Array, weight: Array) -> Array:
    return image_halo(x, len(weight) // 2)


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
