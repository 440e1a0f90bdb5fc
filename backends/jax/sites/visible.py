"""Visible sites only, (N, S, C), patch after patch, and where the K patches lie. K is static, so every shape is.

Pointwise work, norms and 2x2 convolutions stay inside the patches. Only the depthwise
convolution looks outside, through a halo: each patch with a border of its neighbours' sites.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

import spec
from backends.jax.depthwise import Neighbours, gather, scatter, side_of, visible_conv
from backends.jax.norm import safe_norm
from backends.jax.sites.masked import Masked
from backends.jax.steps import at_least_float32


class Layout:
    """Which patches of a (G_h, G_w) grid are visible.

    index (N, K): the visible patches in row-major order. slot (N, G_h, G_w): the place of a
    patch among its image's K, or K where it is removed.
    """

    def __init__(self, mask: Array, visible: int) -> None:
        images, self.rows, self.columns = mask.shape
        removed = mask.reshape(images, -1) != 0
        self.visible = visible
        self.index = jnp.argsort(removed, axis=1, stable=True)[:, :visible]
        slot = jnp.where(removed, visible, (~removed).cumsum(1) - 1)
        self.slot = slot.reshape(images, self.rows, self.columns)

    def gather(self, grid: Array) -> Array:
        """(N, G_h * P, G_w * P, C) -> (N, K * P * P, C)."""
        return gather(grid, self.index, (self.rows, self.columns))

    def scatter(self, x: Array, empty: Array) -> Array:
        """(N, K * P * P, C) -> (N, G_h * P, G_w * P, C), with `empty` (C,) at removed sites."""
        return scatter(x, self.slot, self.visible, empty)

    def halo(self, side: int, border: int) -> Array:
        """(N * K, side + 2 border, side + 2 border): each visible patch and its surroundings.

        Entries are rows of x.reshape(N * K * P * P, C); the row past the end stands for nothing.
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


class Visible:
    """The visible sites only, in the patches that `layout` names.

    x is (N, K * P * P, C), patch after patch, row-major in each. One axis for all sites of an
    image: a TPU would pad a last but one axis of P = 1 to 16.
    """

    convolves = False  # on CPU, loops read the halos

    def __init__(self, x: Array, layout: Layout, halo: Array | None = None) -> None:
        self.x, self.layout, self.halo = x, layout, halo

    @classmethod
    def enter(cls, images: Array, mask: Array | None, patch: int, visible: int) -> "Visible":
        n, height, width, _ = images.shape
        if mask is None:
            mask = jnp.zeros((n, height // patch, width // patch))
        layout = Layout(mask, visible)
        return cls(layout.gather(images), layout)

    @property
    def dtype(self) -> jnp.dtype:
        return self.x.dtype

    def prepare(self, body: dict[str, spec.Step]) -> "Visible":
        """The sites with their halo, so that a scan or a checkpoint over blocks of this body does not compute it."""
        sizes = [step.size for step in body.values() if isinstance(step, spec.DepthwiseConv)]
        return Visible(self.x, self.layout, self._halo(sizes[0])) if sizes else self

    def map(self, function: Callable[[Array], Array]) -> "Visible":
        return Visible(function(self.x), self.layout, self.halo)

    def plus(self, other: "Visible", scale: Array | None = None) -> "Visible":
        """Self plus scale (N,) times other."""
        added = other.x if scale is None else other.x * scale.reshape(-1, 1, 1)
        return Visible(self.x + added, self.layout, self.halo)

    def grid(self) -> Array:
        """(N, H, W, C) with exact zeros at removed sites."""
        return self.layout.scatter(self.x, jnp.zeros((), self.dtype))

    def patch_conv(self, weight: Array, bias: Array) -> "Visible":
        n, _, channels = self.x.shape
        size, _, _, out = weight.shape
        cells = side_of(self.x, self.layout.visible) // size
        windows = self.x.reshape(n, -1, cells, size, cells, size, channels).swapaxes(3, 4)
        matrix = weight.reshape(-1, out)  # (kh kw in), out
        return Visible(windows.reshape(n, -1, len(matrix)) @ matrix + bias, self.layout)

    def depthwise_conv(self, weight: Array, bias: Array) -> "Visible":
        halo = self._halo(weight.shape[0])
        where = Neighbours(halo, self.layout.index, self.layout.slot)
        return Visible(visible_conv(self.x, weight, bias, where), self.layout, halo)

    def _halo(self, size: int) -> Array:
        """The halo for a kernel of this size, once a stage."""
        return self.layout.halo(side_of(self.x, self.layout.visible), size // 2) if self.halo is None else self.halo

    def spatial_norm(self, scope: str) -> Array:
        """L2 norm of each channel over the visible sites: (N, 1, C), or (1, 1, C) over the batch."""
        axes = (1,) if scope == "image" else (0, 1)
        return safe_norm(self.x, axes)

    def fill(self, token: Array) -> Masked:
        return Masked(self.layout.scatter(self.x, token))

    def pool(self) -> Masked:
        return Masked(at_least_float32(self.x).mean(1).astype(self.dtype))
