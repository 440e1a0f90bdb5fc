"""The depthwise convolution on CPU, where XLA's grouped convolution is 5 to 20 times slower.

The functions are those of `kernels.depthwise_gpu`; a halo may also be that of whole images.
"""

import operator
from functools import reduce

import jax.numpy as jnp
from jax import Array, lax

from backends.jax.norm import at_least_float32

SMALL = 4
"""Sites of a tile: up to so many are read one kernel offset at a time, and their gradients one site at a time."""

TERMS, ROW = 64, 16
"""Sites of a tile, and of a row of it, whose products are summed at once in the gradient: measured."""


def conv(x: Array, weight: Array, bias: Array, halo: Array) -> Array:
    """The convolution of x (N, S, C) with weight (k, k, 1, C) and bias (C,); S sites per image.

    halo (T, Q, R): for each tile, a patch or an image, the rows of x.reshape(N * S, C) under it and its border.
    """
    return _conv(x, weight[:, :, 0], halo) + bias


def transposed_conv(grad: Array, weight: Array, halo: Array) -> Array:
    """The gradient by x of `conv`: a convolution with the kernel turned by 180 degrees."""
    return _conv(grad, weight[::-1, ::-1, 0], halo)


def gradients(x: Array, grad: Array, halo: Array, size: int) -> tuple[Array, Array]:
    """The gradients of `conv` by weight (k, k, 1, C) and bias (C,), in float32 at least.

    One tile at a time: its halo, correlated with the gradient inside it.
    """
    rows, (height, width), channels = _rows(x), _inside(halo, size), x.shape[-1]
    across = _divisor(width, ROW)
    down = _divisor(height, TERMS // across)
    if down * across <= SMALL:  # XLA does not vectorise a sum of four products
        down = across = 1
    top, left = (
        jnp.arange(0, side, step)[:, None] + jnp.arange(step + size - 1)
        for side, step in ((height, down), (width, across))
    )
    tiles = halo[:, top[:, None, :, None], left[:, None]]
    inside = grad.reshape(-1, height // down, down, width // across, across, channels).swapaxes(2, 3)

    def add(total: Array, tile: tuple[Array, Array]) -> tuple[Array, None]:
        index, grad = tile
        return total + _correlate(at_least_float32(rows[index]), at_least_float32(grad)), None

    start = at_least_float32(jnp.zeros((size, size, channels), x.dtype))
    pairs = tiles.reshape(-1, *tiles.shape[3:]), inside.reshape(-1, down, across, channels)
    return lax.scan(add, start, pairs)[0][:, :, None], at_least_float32(grad).sum((0, 1))


def _conv(x: Array, kernel: Array, halo: Array) -> Array:
    """The convolution without a bias, summed in float32 at least."""
    rows, kernel, inside = _rows(x), at_least_float32(kernel), _inside(halo, len(kernel))

    def at_once() -> Array:
        return _correlate(at_least_float32(rows[halo]), kernel).astype(x.dtype).reshape(x.shape)

    def add(total: Array, offset: tuple[Array, Array]) -> tuple[Array, None]:
        number, factor = offset
        start = (0, number // len(kernel), number % len(kernel))
        return total + at_least_float32(rows[lax.dynamic_slice(halo, start, (len(halo), *inside))]) * factor, None

    if inside[0] * inside[1] > SMALL:
        # A branch that is always taken: XLA would merge the sum with a norm that follows, and write out every term.
        return lax.cond(lax.optimization_barrier(True), at_once, lambda: jnp.zeros_like(x))
    offsets = jnp.arange(len(kernel) ** 2), kernel.reshape(-1, x.shape[-1])
    start = jnp.zeros((len(halo), *inside, x.shape[-1]), kernel.dtype)
    return lax.scan(add, start, offsets)[0].astype(x.dtype).reshape(x.shape)


def _correlate(tiles: Array, kernel: Array) -> Array:
    """The sum over a, b of tiles (..., Q, R, C), shifted by (a, b), times kernel[a, b] (C,): no padding."""
    down, across = kernel.shape[:2]
    height, width = tiles.shape[-3] - down + 1, tiles.shape[-2] - across + 1
    shifts = [(a, b) for a in range(down) for b in range(across)]
    terms = (tiles[..., a : a + height, b : b + width, :] * kernel[a, b] for a, b in shifts)
    return reduce(operator.add, terms)


def _inside(halo: Array, size: int) -> tuple[int, int]:
    """Rows and columns of a tile without its border."""
    return halo.shape[1] - size + 1, halo.shape[2] - size + 1


def _divisor(count: int, most: int) -> int:
    """The largest divisor of a count that is at most `most`."""
    return max(part for part in range(1, most + 1) if count % part == 0)


def _rows(x: Array) -> Array:
    """x as rows, followed by a row of zeros for indices past the end."""
    return jnp.pad(x.reshape(-1, x.shape[-1]), ((0, 1), (0, 0)))
