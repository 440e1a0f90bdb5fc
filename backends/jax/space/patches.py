"""Where the visible patches lie on their grid, and the sites that a convolution reads around them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

T = TypeVar("T")


class Neighbours(NamedTuple):
    """Where the visible patches lie, as each form of the convolution needs it; XLA drops the fields it does not use."""

    halo: Array  # N * K, Q, Q, as `Layout.halo`
    kept: Array  # N K, as `Layout.index`
    slot: Array  # N G_h G_w, as `Layout.slot`


def pytree(static: tuple[str, ...] = ()) -> Callable[[type[T]], type[T]]:
    """Register a named tuple with JAX; `static` names its fields that are no arrays.

    Its children have numbers for keys: nnx.tabulate fails on named ones.
    """

    def register(cls: Any) -> Any:
        arrays = [name for name in cls._fields if name not in static]

        def flatten(node: Any) -> tuple[Any, Any]:
            return tuple(getattr(node, name) for name in arrays), tuple(getattr(node, name) for name in static)

        def unflatten(constants: Any, children: Any) -> Any:
            return cls(**dict(zip(arrays, children, strict=True)), **dict(zip(static, constants, strict=True)))

        jax.tree_util.register_pytree_node(cls, flatten, unflatten)
        return cls

    return register


@pytree()
class Layout(NamedTuple):
    """Which patches of a (G_h, G_w) grid are visible."""

    index: Array  # type: ignore[assignment]  # N K: the visible patches in row-major order
    slot: Array  # N G_h G_w: the position of a patch among its image's K, or K where it is removed

    @classmethod
    def of(cls, mask: Array, visible: int) -> "Layout":
        """The layout of a mask (N, G_h, G_w), 1 = removed, that keeps `visible` patches per image."""
        removed = mask.reshape(len(mask), -1) != 0
        index = jnp.argsort(removed, axis=1, stable=True)[:, :visible]
        slot = jnp.where(removed, visible, (~removed).cumsum(1) - 1)
        return cls(index, slot.reshape(mask.shape))

    @property
    def visible(self) -> int:
        """K, the number of visible patches per image."""
        return self.index.shape[1]

    @property
    def rows(self) -> int:
        """G_h, the rows of patches."""
        return self.slot.shape[1]

    @property
    def columns(self) -> int:
        """G_w, the columns of patches."""
        return self.slot.shape[2]

    def gather(self, grid: Array) -> Array:
        """(N, G_h * P, G_w * P, C) -> (N, K * P * P, C)."""
        return gather(grid, self.index, (self.rows, self.columns))

    def scatter(self, x: Array, empty: Array) -> Array:
        """(N, K * P * P, C) -> (N, G_h * P, G_w * P, C), with `empty` (C,) at removed sites."""
        return scatter(x, self.slot, self.visible, empty)

    def halo(self, side: int, border: int) -> Array:
        """(N * K, side + 2 border, side + 2 border): each visible patch and its surroundings.

        Entries are rows of x.reshape(N * K * P * P, C); the index past the end means 0.
        """
        images = self.slot.shape[0]
        inside = jnp.arange(side * side).reshape(side, side)
        first = jnp.arange(images).reshape(-1, 1, 1) * self.visible + self.slot
        row = first[:, :, None, :, None] * side**2 + inside[:, None, :]  # N G_h P G_w P
        nothing = images * self.visible * side**2
        row = jnp.where((self.slot == self.visible)[:, :, None, :, None], nothing, row)
        row = row.reshape(images, self.rows * side, self.columns * side)
        row = jnp.pad(row, ((0, 0), (border, border), (border, border)), constant_values=nothing)
        reach = jnp.arange(side + 2 * border)
        y = (self.index // self.columns)[:, :, None] * side + reach  # N K Q
        x = (self.index % self.columns)[:, :, None] * side + reach
        image = jnp.arange(images)[:, None, None, None]
        tiles = row[image, y[:, :, :, None], x[:, :, None, :]]
        return tiles.reshape(-1, *tiles.shape[2:])


def image_halo(x: Array, border: int) -> Array:
    """(N, H + 2 border, W + 2 border) for whole images x (N, H, W, C): entries as those of `Layout.halo`."""
    images, height, width, _ = x.shape
    sites = images * height * width
    row = jnp.arange(sites, dtype=jnp.int32).reshape(images, height, width)
    return jnp.pad(row, ((0, 0), (border, border), (border, border)), constant_values=sites)


def side_of(x: Array, visible: int) -> int:
    """P, the sites along a patch, of x (N, K * P * P, C)."""
    return math.isqrt(x.shape[1] // visible)


def gather(grid: Array, index: Array, patches: tuple[int, ...]) -> Array:
    """The visible sites (N, K * P * P, C) of a grid (N, G_h * P, G_w * P, C); patches are (G_h, G_w)."""
    images, height, _, channels = grid.shape
    return take(patchify(grid, height // patches[0]), index).reshape(images, -1, channels)


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
    """Patches (N, J, ...) of patches (N, I, ...), by their numbers (N, J), which are all below I."""
    index = index.reshape(*index.shape, *[1] * (patches.ndim - 2))
    return jnp.take_along_axis(patches, index, 1, mode="promise_in_bounds")


def removed_patches(mask: Array, visible: int) -> Array:
    """(N, R): the removed patches of a mask (N, G_h, G_w) that keeps `visible` per image, in row-major order."""
    kept = mask.reshape(len(mask), -1) == 0
    return jnp.argsort(kept, axis=1, stable=True)[:, : kept.shape[1] - visible]


def patchify(images: Array, patch: int) -> Array:
    """(N, H, W, C) -> (N, G_h, G_w, patch * patch * C) in the order row, column, channel."""
    n, height, width, channels = images.shape
    grid = images.reshape(n, height // patch, patch, width // patch, patch, channels).swapaxes(2, 3)
    return grid.reshape(*grid.shape[:3], -1)


def take(grid: Array, index: Array) -> Array:
    """The patches (N, R, C) of a grid (N, G_h, G_w, C), by their numbers (N, R)."""
    return _taken(grid.reshape(len(grid), -1, grid.shape[-1]), index)
