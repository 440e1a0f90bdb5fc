"""Where the visible patches lie on their grid, and the sites that a convolution reads around them."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

WHOLE = 2
"""On CPU, use whole images once halos hold this many times more sites: measured."""


class Halo(NamedTuple):
    """Indices of the sites that a convolution reads, and of the results that it keeps.

    T tiles: visible patches or whole images, each with a border.

    rows (T, R, Q): the sites under a tile, as rows of x.view(-1, C); the index past the end means 0.
    kept (N * K * P * P): the visible sites among the results of all tiles; None: all of them, in order.
    """

    rows: Tensor
    kept: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Layout:
    """Which patches of a (G_h, G_w) grid are visible."""

    index: Tensor  # N K: the visible patches in row-major order
    slot: Tensor  # N G_h G_w: the position of a patch among its image's K, or K where it is removed

    @classmethod
    def of(cls, mask: Tensor, visible: int) -> "Layout":
        """The layout of a mask (N, G_h, G_w), 1 = removed, that keeps `visible` patches per image."""
        removed = mask.flatten(1) != 0
        index = removed.to(torch.uint8).argsort(dim=1, stable=True)[:, :visible]
        slot = torch.where(removed, visible, (~removed).cumsum(1) - 1)
        return cls(index, slot.view(mask.shape))

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

    def gather(self, grid: Tensor) -> Tensor:
        """(N, G_h * P, G_w * P, C) -> (N, K, P, P, C)."""
        images, height, _, channels = grid.shape
        side = height // self.rows
        return take(patchify(grid, side), self.index).view(images, self.visible, side, side, channels)

    def scatter(self, x: Tensor, empty: Tensor) -> Tensor:
        """(N, K, P, P, C) -> (N, G_h * P, G_w * P, C), with `empty` (C,) at removed sites."""
        images, visible, side, _, channels = x.shape
        slot = self.slot.flatten(1)
        patches = take(x.view(images, 1, visible, -1), slot.clamp(max=visible - 1)).unflatten(-1, (side, side, -1))
        patches = torch.where((slot == visible)[:, :, None, None, None], empty, patches)
        grid = patches.view(images, self.rows, self.columns, side, side, channels).transpose(2, 3)
        return grid.reshape(images, self.rows * side, self.columns * side, channels)

    def halo(self, side: int, border: int) -> Halo:
        """The halo of a convolution of size 2 border + 1 on patches of side x side sites, as patches or whole images.

        Halos of neighbouring patches overlap: where patches are small, whole images are the cheaper tiles.
        """
        halos = self.visible * (side + 2 * border) ** 2
        images = (self.rows * side + 2 * border) * (self.columns * side + 2 * border)
        if self.index.device.type == "cpu" and halos > WHOLE * images:
            return self._image_halo(side, border)
        return self._patch_halo(side, border)

    def _patch_halo(self, side: int, border: int) -> Halo:
        """One tile per visible patch: (N * K, side + 2 border, side + 2 border)."""
        images, device = self.slot.shape[0], self.slot.device
        reach = torch.arange(side + 2 * border, device=device)
        y = (self.index // self.columns)[:, :, None] * side + reach  # N K Q
        x = (self.index % self.columns)[:, :, None] * side + reach
        image = torch.arange(images, device=device)[:, None, None, None]
        return Halo(self._row(side, border)[image, y[:, :, :, None], x[:, :, None, :]].flatten(0, 1))

    def _image_halo(self, side: int, border: int) -> Halo:
        """One tile per image: (N, G_h * side + 2 border, G_w * side + 2 border)."""
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


def removed_patches(mask: Tensor, visible: int) -> Tensor:
    """(N, R): the removed patches of a mask (N, G_h, G_w) that keeps `visible` per image, in row-major order."""
    kept = mask.flatten(1) == 0
    return kept.to(torch.uint8).argsort(dim=1, stable=True)[:, : kept.shape[1] - visible]


def patchify(images: Tensor, patch: int) -> Tensor:
    """(N, H, W, C) -> (N, G_h, G_w, patch * patch * C) in the order row, column, channel."""
    n, height, width, channels = images.shape
    grid = images.view(n, height // patch, patch, width // patch, patch, channels)
    return grid.transpose(2, 3).flatten(3)


def take(grid: Tensor, index: Tensor) -> Tensor:
    """The patches (N, R, C) of a grid (N, G_h, G_w, C), by their numbers (N, R)."""
    images, height, width, channels = grid.shape
    first = torch.arange(images, device=index.device)[:, None] * (height * width)
    return grid.reshape(-1, channels).index_select(0, (first + index).flatten()).view(*index.shape, channels)
