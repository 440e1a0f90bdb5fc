"""The depthwise convolution on visible patches, through their halos.

Forward and both gradients are gathers followed by dense work: nothing is scattered, and
every convolution computes at visible sites only.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax


@jax.custom_vjp
def halo_conv(x: Array, weight: Array, halo: Array) -> Array:
    """Depthwise convolution of x (N, K, P, P, C) with weight (k, k, 1, C); halo as `Layout.halo`."""
    return _conv(x, weight, halo)


def _forward(x: Array, weight: Array, halo: Array) -> tuple[Array, tuple[Array, ...]]:
    return _conv(x, weight, halo), (x, weight, halo)


def _backward(saved: tuple[Array, ...], grad: Array) -> tuple[Array, Array, None]:
    """y = conv(halo of x); dx = conv(halo of dy) with the kernel turned by 180 degrees."""
    x, weight, halo = saved
    return _conv(grad, weight[::-1, ::-1], halo), _weight_gradient(x, grad, halo).astype(weight.dtype), None


halo_conv.defvjp(_forward, _backward)


def _tiles(x: Array, halo: Array) -> Array:
    """The halos of all patches: (N * K, Q, Q, C)."""
    return x.reshape(-1, x.shape[-1]).at[halo].get(mode="fill", fill_value=0)


def _conv(x: Array, weight: Array, halo: Array) -> Array:
    tiles = _tiles(x, halo)
    return lax.platform_dependent(tiles, weight, cpu=_shifted_conv, default=_grouped_conv).reshape(x.shape)


def _grouped_conv(tiles: Array, weight: Array) -> Array:
    dims = ("NHWC", "HWIO", "NHWC")
    groups = weight.shape[-1]
    return lax.conv_general_dilated(tiles, weight, (1, 1), "VALID", dimension_numbers=dims, feature_group_count=groups)


def _shifted_conv(tiles: Array, weight: Array) -> Array:
    """One multiply-add a kernel offset, which XLA fuses on CPU, where its grouped conv is 20 times slower."""
    k = weight.shape[0]
    side = tiles.shape[1] - k + 1
    return sum(tiles[:, i : i + side, j : j + side] * weight[i, j, 0] for i in range(k) for j in range(k))


def _weight_gradient(x: Array, grad: Array, halo: Array) -> Array:
    """dw (k, k, 1, C) = sum over tiles of tile, convolved with its own patch's gradient."""
    tiles = _tiles(x, halo)
    grad = grad.reshape(-1, *grad.shape[2:])
    return lax.platform_dependent(tiles, grad, cpu=_shifted_gradient, default=_grouped_gradient)


def _grouped_gradient(tiles: Array, grad: Array) -> Array:
    k, channels = tiles.shape[1] - grad.shape[1] + 1, tiles.shape[-1]
    _, pullback = jax.vjp(lambda weight: _grouped_conv(tiles, weight), jnp.zeros((k, k, 1, channels), tiles.dtype))
    return pullback(grad)[0]


def _shifted_gradient(tiles: Array, grad: Array) -> Array:
    """One multiply-add a site of a patch, then a sum over tiles, which is fastest as a product with ones."""
    side, channels = grad.shape[1], grad.shape[-1]
    k = tiles.shape[1] - side + 1
    each = sum(tiles[:, p : p + k, q : q + k] * grad[:, p : p + 1, q : q + 1] for p in range(side) for q in range(side))
    return (jnp.ones(len(tiles), each.dtype) @ each.reshape(len(tiles), -1)).reshape(k, k, 1, channels)
