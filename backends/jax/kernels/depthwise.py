"""The depthwise convolution on visible patches for TPUs, in Pallas, on one device or many.

XLA cannot cut a kernel up for several devices, so it is told how: each convolves its own images and
channels, and weight gradients are added up over devices.
"""

from functools import partial
from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from backends.jax.kernels import canvas

Grid = tuple[int, int]


class Where(Protocol):
    """Where the visible patches lie, as `backends.jax.depthwise.Neighbours` says it."""

    @property
    def kept(self) -> Array:
        """N K: their numbers in the grid."""

    @property
    def slot(self) -> Array:
        """N G_h G_w; only its shape is read."""


def conv(x: Array, weight: Array, where: Where) -> Array:
    """Depthwise convolution of x (N, K * P * P, C) with weight (k, k, 1, C), in the dtype of x.

    It adds up in float32. FLOPs and bytes in XLA's `cost_analysis` are those of `canvas.Plan.cost`.
    """
    return _conv(x, weight[:, :, 0].astype(jnp.float32), where.kept, _grid(where))


def weight_gradient(x: Array, grad: Array, where: Where, size: int) -> Array:
    """dw (k, k, 1, C) in the dtype of x, added up in float32."""
    return _gradient(x, grad, where.kept, _grid(where), size)[:, :, None].astype(x.dtype)


@partial(custom_partitioning, static_argnums=(3,))
def _conv(x: Array, taps: Array, kept: Array, grid: Grid) -> Array:
    return canvas.conv(x, taps, kept, grid)


def _split_conv(grid: Grid, mesh: Mesh, given: Any, _: Any) -> Any:
    images, channels = _axes(given[0])
    sites, taps, kept = (NamedSharding(mesh, P(*axes)) for axes in _layouts(images, channels))
    return mesh, partial(canvas.conv, grid=grid), sites, (sites, taps, kept)


_conv.def_partition(_split_conv, sharding_rule="n s c, i j c, n k -> n s c", need_replication_factors=("s", "i", "j", "k"))


@partial(custom_partitioning, static_argnums=(3, 4))
def _gradient(x: Array, grad: Array, kept: Array, grid: Grid, size: int) -> Array:
    return canvas.weight_gradient(x, grad, kept, grid, size)


def _split_gradient(grid: Grid, size: int, mesh: Mesh, given: Any, _: Any) -> Any:
    images, channels = _axes(given[0])
    sites, taps, kept = (NamedSharding(mesh, P(*axes)) for axes in _layouts(images, channels))

    def part(x: Array, grad: Array, kept: Array) -> Array:
        dw = canvas.weight_gradient(x, grad, kept, grid, size)
        return dw if images is None else lax.psum(dw, images)

    return mesh, part, taps, (sites, sites, kept)


_gradient.def_partition(
    _split_gradient,
    sharding_rule="n s c, n s c, n k -> i j c",
    reduction_factors=("n",),
    need_replication_factors=("s", "k", "i", "j"),  # in the order of the rule
)


def _axes(x: Any) -> tuple[Any, Any]:
    """The mesh axes over which images and channels of x are spread, or None."""
    spec = (*x.sharding.spec, None, None, None)
    return spec[0], spec[2]


def _layouts(images: Any, channels: Any) -> tuple[Any, Any, Any]:
    """The axes of x, taps and kept."""
    return (images, None, channels), (None, None, channels), (images, None)


def _grid(where: Where) -> Grid:
    _, rows, columns = where.slot.shape
    return rows, columns
