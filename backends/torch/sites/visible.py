"""Visible patches only: (N, K, P, P, C) and where the K patches lie. K is static, so every shape is.

Pointwise work, norms and 2x2 convolutions stay inside the patches. Only the depthwise
convolution looks outside, through a halo: each patch with a border of its neighbours' sites.
"""

from collections.abc import Callable

import torch
from torch import Tensor

import spec
from backends.torch.depthwise import Halo, halo_conv
from backends.torch.norm import safe_norm
from backends.torch.sites.masked import Masked
from backends.torch.steps import at_least_float32

WHOLE = 3
"""How many times the sites of whole images the halos may hold before a CPU does better on whole images: measured."""


class Layout:
    """Which patches of a (G_h, G_w) grid are visible.

    index (N, K): the visible patches in row-major order. slot (N, G_h, G_w): the place of a
    patch among its image's K, or K where it is removed.
    """

    def __init__(self, mask: Tensor, visible: int) -> None:
        images, self.rows, self.columns = mask.shape
        removed = mask.flatten(1) != 0
        self.visible = visible
        self.index = removed.to(torch.uint8).argsort(dim=1, stable=True)[:, :visible]
        slot = torch.where(removed, visible, (~removed).cumsum(1) - 1)
        self.slot = slot.view(images, self.rows, self.columns)

    def gather(self, grid: Tensor) -> Tensor:
        """(N, G_h * P, G_w * P, C) -> (N, K, P, P, C)."""
        images, height, _, channels = grid.shape
        side = height // self.rows
        patches = grid.view(images, self.rows, side, self.columns, side, channels).transpose(2, 3).flatten(1, 2)
        return patches[torch.arange(images, device=grid.device)[:, None], self.index]

    def scatter(self, x: Tensor, empty: Tensor) -> Tensor:
        """(N, K, P, P, C) -> (N, G_h * P, G_w * P, C), with `empty` (C,) at removed sites."""
        images, _, side, _, channels = x.shape
        padded = torch.cat([x, empty.expand(images, 1, side, side, channels)], 1)
        patches = padded[torch.arange(images, device=x.device)[:, None], self.slot.flatten(1)]
        grid = patches.view(images, self.rows, self.columns, side, side, channels).transpose(2, 3)
        return grid.reshape(images, self.rows * side, self.columns * side, channels)

    def halo(self, side: int, border: int) -> Halo:
        """What a convolution of 2 border + 1 sites reads: each patch and its surroundings, or whole images.

        Halos repeat their neighbours' sites: where patches are small, images are the cheaper tiles.
        """
        halos = self.visible * (side + 2 * border) ** 2
        images = (self.rows * side + 2 * border) * (self.columns * side + 2 * border)
        if self.index.device.type == "cpu" and halos > WHOLE * images:
            return self._image_halo(side, border)
        return self._patch_halo(side, border)

    def _patch_halo(self, side: int, border: int) -> Halo:
        """A tile a visible patch: (N * K, side + 2 border, side + 2 border)."""
        images, device = self.slot.shape[0], self.slot.device
        reach = torch.arange(side + 2 * border, device=device)
        y = (self.index // self.columns)[:, :, None] * side + reach  # N K Q
        x = (self.index % self.columns)[:, :, None] * side + reach
        image = torch.arange(images, device=device)[:, None, None, None]
        return Halo(self._row(side, border)[image, y[:, :, :, None], x[:, :, None, :]].flatten(0, 1))

    def _image_halo(self, side: int, border: int) -> Halo:
        """A tile an image: (N, G_h * side + 2 border, G_w * side + 2 border)."""
        index = self._row(side, border)
        sites = self.slot.numel() * side**2
        place = torch.arange(sites, device=index.device).view(len(index), self.rows * side, self.columns * side, 1)
        return Halo(index, self.gather(place).flatten())

    def _row(self, side: int, border: int) -> Tensor:
        """The row of x.view(N * K * P * P, C) at each site of the images and of a border around them."""
        images, device = self.slot.shape[0], self.slot.device
        inside = torch.arange(side * side, device=device).view(side, side)
        first = torch.arange(images, device=device).view(-1, 1, 1) * self.visible + self.slot
        row = first[:, :, None, :, None] * side**2 + inside[:, None, :]  # N G_h P G_w P
        nothing = images * self.visible * side**2
        row = row.masked_fill((self.slot == self.visible)[:, :, None, :, None], nothing)
        row = row.view(images, self.rows * side, self.columns * side)
        return torch.nn.functional.pad(row, (border,) * 4, value=nothing)


class Visible:
    """The visible sites only, in the patches that `layout` names.

    x is (N, K, P, P, C).
    """

    def __init__(self, x: Tensor, layout: Layout, halo: Halo | None = None) -> None:
        self.x, self.layout, self.halo = x, layout, halo
        self.only_visible = True
        self.squares: Tensor | None = None  # their sums an image (N, C), where a step before has made them

    @classmethod
    def enter(cls, images: Tensor, mask: Tensor | None, patch: int, visible: int) -> "Visible":
        n, height, width, _ = images.shape
        if mask is None:
            mask = torch.zeros(n, height // patch, width // patch, device=images.device)
        layout = Layout(mask, visible)
        return cls(layout.gather(images), layout)

    @property
    def dtype(self) -> torch.dtype:
        return self.x.dtype

    def prepare(self, body: dict[str, spec.Step]) -> "Visible":
        """The sites with their halo, so that the blocks of this body after it need not compute it."""
        sizes = [step.size for step in body.values() if isinstance(step, spec.DepthwiseConv)]
        return Visible(self.x, self.layout, self._halo(sizes[0])) if sizes else self

    def map(self, function: Callable[[Tensor], Tensor]) -> "Visible":
        return Visible(function(self.x), self.layout, self.halo)

    def plus(self, other: "Visible", scale: Tensor | None = None) -> "Visible":
        """Self plus scale (N,) times other."""
        added = other.x if scale is None else other.x * scale.view(-1, 1, 1, 1, 1)
        return Visible(self.x + added, self.layout, self.halo)

    def grid(self) -> Tensor:
        """(N, H, W, C) with exact zeros at removed sites."""
        return self.layout.scatter(self.x, self.x.new_zeros(()))

    def patch_conv(self, weight: Tensor, bias: Tensor) -> "Visible":
        n, k, side, _, channels = self.x.shape
        out, _, size, _ = weight.shape
        windows = self.x.view(n, k, side // size, size, side // size, size, channels).transpose(3, 4)
        matrix = weight.permute(0, 2, 3, 1).reshape(out, -1)  # out, (kh kw in)
        x = torch.nn.functional.linear(windows.flatten(4), matrix, bias)
        return Visible(x, self.layout)

    def depthwise_conv(self, weight: Tensor, bias: Tensor) -> "Visible":
        halo = self._halo(weight.shape[-1])
        return Visible(halo_conv(self.x, weight, bias, halo), self.layout, halo)

    def _halo(self, size: int) -> Halo:
        """The halo for a kernel of this size, once a stage."""
        return self.layout.halo(self.x.shape[2], size // 2) if self.halo is None else self.halo

    def spatial_norm(self, scope: str) -> Tensor:
        """L2 norm of each channel over the visible sites: (N, 1, 1, 1, C), or (1, 1, 1, 1, C) over the batch."""
        axes = (1, 2, 3) if scope == "image" else (0, 1, 2, 3)
        return safe_norm(self.x, axes, self.squares)

    def fill(self, token: Tensor) -> Masked:
        return Masked(self.layout.scatter(self.x, token))

    def pool(self) -> Masked:
        return Masked(at_least_float32(self.x).mean((1, 2, 3)).to(self.dtype))
