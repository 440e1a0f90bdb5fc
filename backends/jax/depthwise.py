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


def _conv(x: Array, weight: Array, halo: Array) -> Array:
    return lax.platform_dependent(x, weight, halo, cpu=_scanned_conv, default=_grouped_conv)


def _weight_gradient(x: Array, grad: Array, halo: Array) -> Array:
    """dw (k, k, 1, C) = sum over tiles of tile, convolved with its own patch's gradient."""
    return lax.platform_dependent(x, grad, halo, cpu=_scanned_gradient, default=_grouped_gradient)


def _tiles(x: Array, halo: Array) -> Array:
    """The halos of all patches: (N * K, Q, Q, C)."""
    return x.reshape(-1, x.shape[-1]).at[halo].get(mode="fill", fill_value=0)


def _grouped_conv(x: Array, weight: Array, halo: Array) -> Array:
    return _library_conv(_tiles(x, halo), weight).reshape(x.shape)


def _library_conv(tiles: Array, weight: Array) -> Array:
    dims = ("NHWC", "HWIO", "NHWC")
    groups = weight.shape[-1]
    return lax.conv_general_dilated(tiles, weight, (1, 1), "VALID", dimension_numbers=dims, feature_group_count=groups)


def _grouped_gradient(x: Array, grad: Array, halo: Array) -> Array:
    tiles, channels = _tiles(x, halo), x.shape[-1]
    k = tiles.shape[1] - grad.shape[2] + 1
    _, pullback = jax.vjp(lambda weight: _library_conv(tiles, weight), jnp.zeros((k, k, 1, channels), tiles.dtype))
    return pullback(grad.reshape(-1, *grad.shape[2:]))[0]


def _scanned_conv(x: Array, weight: Array, halo: Array) -> Array:
    """One gather and multiply-add a kernel offset; XLA's grouped conv is 20 times slower on CPU.

    A loop, since XLA tears the unrolled sum apart when a norm follows: it wrote out every shifted tile.
    """
    k, side = weight.shape[0], x.shape[2]
    shifts = jnp.stack([halo[:, i : i + side, j : j + side] for i in range(k) for j in range(k)])
    rows = _rows(x)

    def add(y: Array, offset: tuple[Array, Array]) -> tuple[Array, None]:
        shift, factor = offset
        return y + rows[shift] * factor, None

    start = jnp.zeros((len(halo), *x.shape[2:]), x.dtype)
    return lax.scan(add, start, (shifts, weight.reshape(k * k, -1)))[0].reshape(x.shape)


def _scanned_gradient(x: Array, grad: Array, halo: Array) -> Array:
    """A patch at a time, of all images at once: its tile, shifted to each site, times the gradient there.

    Patches of up to 2 x 2 sites go a site at a time: XLA leaves a sum of four products scalar.
    """
    images, _, side, _, channels = grad.shape
    k, step = halo.shape[1] - side + 1, side if side > 2 else 1
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
