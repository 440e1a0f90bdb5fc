"""The depthwise convolution on visible patches for TPUs, in Pallas, on one device or many.

XLA refuses to cut a kernel up for several devices. Under a mesh, which `jax.set_mesh` or
`jax.sharding.use_abstract_mesh` names, every device takes its share of the images;
`custom_partitioning`, which needs no name, does not work on TPUs (jax issue 38196).
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec as P

from backends.jax.kernels import canvas


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

    It adds up in float32. FLOPs and bytes in XLA's `cost_analysis` are those of `Plan.cost`.
    """
    images = _axes()
    part = partial(canvas.conv, grid=_grid(where))
    taps = weight[:, :, 0].astype(jnp.float32)
    return _shared(part, (P(images), P(), P(images)), P(images))(x, taps, where.kept)


def weight_gradient(x: Array, grad: Array, where: Where, size: int) -> Array:
    """dw (k, k, 1, C) in the dtype of x, added up in float32."""
    images, grid = _axes(), _grid(where)

    def part(x: Array, grad: Array, kept: Array) -> Array:
        return lax.psum(canvas.weight_gradient(x, grad, kept, grid, size), images)

    return _shared(part, (P(images),) * 3, P())(x, grad, where.kept)[:, :, None].astype(x.dtype)


def _axes() -> tuple[str, ...]:
    """The axes of the mesh over which images are spread: all, or none where there is no mesh."""
    return jax.sharding.get_abstract_mesh().axis_names


def _shared(part: Callable[..., Array], given: tuple[P, ...], result: P) -> Callable[..., Array]:
    """The function of all images, of one of a device's; the batch must divide by the devices."""
    return jax.shard_map(part, in_specs=given, out_specs=result, check_vma=False) if _axes() else part


def _grid(where: Where) -> tuple[int, int]:
    """The shape of the grid of patches."""
    _, rows, columns = where.slot.shape
    return rows, columns
