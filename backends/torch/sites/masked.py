"""Masked dense: the full grid and a keep grid; the plain model when nothing is masked."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import spec
from backends.torch.norm import safe_norm
from backends.torch.steps import at_least_float32


class Masked:
    """x (N, H, W, C) and keep (N, H, W, 1), or no keep when every site is visible.

    Removed sites hold anything between spatial steps; they are cleared where space mixes.
    """

    def __init__(self, x: Tensor, keep: Tensor | None = None) -> None:
        self.x, self.keep = x, keep
        self.only_visible = keep is None
        self.squares: Tensor | None = None  # their sums an image (N, C), where a step before has made them

    @classmethod
    def enter(cls, images: Tensor, mask: Tensor | None, patch: int) -> "Masked":
        if mask is None:
            return cls(images)
        keep = (mask == 0).repeat_interleave(patch, 1).repeat_interleave(patch, 2)
        return cls(images, keep[..., None])

    @property
    def dtype(self) -> torch.dtype:
        return self.x.dtype

    def prepare(self, body: dict[str, spec.Step]) -> "Masked":
        """Self: these sites find all that a block needs on the way."""
        return self

    def map(self, function: Callable[[Tensor], Tensor]) -> "Masked":
        return Masked(function(self.x), self.keep)

    def plus(self, other: "Masked", scale: Tensor | None = None) -> "Masked":
        """Self plus scale (N,) times other."""
        added = other.x if scale is None else other.x * scale.view(-1, 1, 1, 1)
        return Masked(self.x + added, self.keep)

    def grid(self) -> Tensor:
        """x with exact zeros at removed sites: a `where`, so that inf and NaN cannot pass."""
        return self.x if self.keep is None else torch.where(self.keep, self.x, 0)

    def patch_conv(self, weight: Tensor, bias: Tensor) -> "Masked":
        stride = weight.shape[-1]
        keep = None if self.keep is None else self.keep[:, ::stride, ::stride]
        return Masked(_conv(self.grid(), weight, bias, stride=stride), keep)

    def depthwise_conv(self, weight: Tensor, bias: Tensor) -> "Masked":
        padding, channels = weight.shape[-1] // 2, weight.shape[0]
        return Masked(_conv(self.grid(), weight, bias, padding=padding, groups=channels), self.keep)

    def spatial_norm(self, scope: str) -> Tensor:
        """L2 norm of each channel over the visible sites: (N, 1, 1, C), or (1, 1, 1, C) over the batch."""
        axes = (1, 2) if scope == "image" else (0, 1, 2)
        return safe_norm(self.grid(), axes, self.squares)

    def fill(self, token: Tensor) -> "Masked":
        return Masked(self.x if self.keep is None else torch.where(self.keep, self.x, token))

    def pool(self) -> "Masked":
        total = at_least_float32(self.grid()).sum((1, 2))
        count = self.x.shape[1] * self.x.shape[2] if self.keep is None else self.keep.sum((1, 2))
        return Masked((total / count).to(self.dtype))


def _conv(x: Tensor, weight: Tensor, bias: Tensor, **options: int) -> Tensor:
    """conv2d on (N, H, W, C): the permuted view is torch's channels_last, so nothing is copied."""
    return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, **options).permute(0, 2, 3, 1)
