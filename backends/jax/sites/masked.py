"""Masked dense: the full grid and a keep grid; the plain model when nothing is masked."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

import spec
from backends.jax.norm import safe_norm
from backends.jax.steps import at_least_float32


class Masked:
    """x (N, H, W, C) and keep (N, H, W, 1), or no keep when every site is visible.

    Removed sites hold anything between spatial steps; they are cleared where space mixes.
    """

    convolves = True  # by XLA's own convolution, on CPU too

    def __init__(self, x: Array, keep: Array | None = None) -> None:
        self.x, self.keep = x, keep

    @classmethod
    def enter(cls, images: Array, mask: Array | None, patch: int) -> "Masked":
        if mask is None:
            return cls(images)
        keep = (mask == 0).repeat(patch, 1).repeat(patch, 2)
        return cls(images, keep[..., None])

    @property
    def dtype(self) -> jnp.dtype:
        return self.x.dtype

    def prepare(self, body: dict[str, spec.Step]) -> "Masked":
        """Self: these sites find all that a block needs on the way."""
        return self

    def map(self, function: Callable[[Array], Array]) -> "Masked":
        return Masked(function(self.x), self.keep)

    def plus(self, other: "Masked", scale: Array | None = None) -> "Masked":
        """Self plus scale (N,) times other."""
        added = other.x if scale is None else other.x * scale.reshape(-1, 1, 1, 1)
        return Masked(self.x + added, self.keep)

    def grid(self) -> Array:
        """x with exact zeros at removed sites: a `where`, so that inf and NaN cannot pass."""
        return self.x if self.keep is None else jnp.where(self.keep, self.x, 0)

    def patch_conv(self, weight: Array, bias: Array) -> "Masked":
        stride = weight.shape[0]
        keep = None if self.keep is None else _coarser(self.keep, stride)
        return Masked(_conv(self.grid(), weight, bias, window_strides=(stride, stride), padding="VALID"), keep)

    def depthwise_conv(self, weight: Array, bias: Array) -> "Masked":
        groups = weight.shape[-1]
        x = _conv(self.grid(), weight, bias, window_strides=(1, 1), padding="SAME", feature_group_count=groups)
        return Masked(x, self.keep)

    def spatial_norm(self, scope: str) -> Array:
        """L2 norm of each channel over the visible sites: (N, 1, 1, C), or (1, 1, 1, C) over the batch."""
        axes = (1, 2) if scope == "image" else (0, 1, 2)
        return safe_norm(self.grid(), axes)

    def fill(self, token: Array) -> "Masked":
        return Masked(self.x if self.keep is None else jnp.where(self.keep, self.x, token))

    def pool(self) -> "Masked":
        total = at_least_float32(self.grid()).sum((1, 2))
        count = self.x.shape[1] * self.x.shape[2] if self.keep is None else self.keep.sum((1, 2))
        return Masked((total / count).astype(self.dtype))


def _conv(x: Array, weight: Array, bias: Array, **options: Any) -> Array:
    return lax.conv_general_dilated(x, weight, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options) + bias


def _coarser(keep: Array, stride: int) -> Array:
    """Every `stride`-th row and column of keep (N, H, W, 1), by reshaping: XLA's Triton fusion crashes on slices."""
    n, height, width, one = keep.shape
    return keep.reshape(n, height // stride, stride, width // stride, stride, one)[:, :, 0, :, 0]
