"""Engine "masked": the full grid and the sites to keep; the plain model when nothing is masked."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.export import is_symbolic_dim

from backends.jax.depthwise import image_conv
from backends.jax.kernels import Kernels
from backends.jax.norm import at_least_float32, respond, row_major, safe_norm
from backends.jax.space.patches import pytree
from backends.jax.space.protocol import Space


@pytree(static=("kernels",))
class DenseSpace(NamedTuple):
    """x is (N, H, W, C). Removed sites hold anything between spatial steps, which clear them first."""

    kernels: Kernels = None  # whose Pallas kernels compute convolutions
    keep: Array | None = None  # N H W 1; None: every site is visible

    def grid(self, x: Array) -> Array:
        """By `where`, not by a product, so that inf and NaN cannot pass."""
        return x if self.keep is None else jnp.where(self.keep, x, 0)

    def broadcast(self, values: Array) -> Array:
        return values.reshape(-1, 1, 1, 1)

    def patch_conv(self, x: Array, weight: Array, bias: Array) -> tuple[Array, Space]:
        stride = weight.shape[0]
        keep = None if self.keep is None else _coarser(self.keep, stride)
        y = _conv(self.grid(x), weight, bias, window_strides=(stride, stride), padding="VALID")
        return y, DenseSpace(self.kernels, keep)

    def depthwise_conv(self, x: Array, weight: Array, bias: Array) -> Array:
        symbolic = any(map(is_symbolic_dim, x.shape))  # in an exported program; a halo needs numbers
        loops = self.keep is None and self.kernels is None and not symbolic  # XLA's convolution serves TPUs
        if self.kernels == "cuda" or loops:
            return image_conv(self.grid(x), weight, bias, self.kernels)
        options = {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": weight.shape[-1]}
        return _conv(self.grid(x), weight, bias, **options)

    def grn(self, x: Array, gamma: Array, beta: Array, eps: float, scope: str) -> Array:
        axes = (0, 1, 2) if scope == "batch" else (1, 2)
        x = row_major(x, self.kernels)
        return respond(x, safe_norm(x if scope == "grid" else self.grid(x), axes), gamma, beta, eps)

    def fill(self, x: Array, token: Array) -> tuple[Array, Space]:
        return x if self.keep is None else jnp.where(self.keep, x, token), DenseSpace(self.kernels)

    def pool(self, x: Array) -> tuple[Array, Space]:
        total = at_least_float32(self.grid(x)).sum((1, 2))
        count = x.shape[1] * x.shape[2] if self.keep is None else self.keep.sum((1, 2))
        return (total / count).astype(x.dtype), DenseSpace(self.kernels)


def enter(images: Array, mask: Array | None, patch: int) -> tuple[Array, DenseSpace]:
    """Images (N, H, W, C) and their space; mask (N, G_h, G_w), 1 = removed, or None."""
    if mask is None:
        return images, DenseSpace()
    keep = (mask == 0).repeat(patch, 1).repeat(patch, 2)
    return images, DenseSpace(keep=keep[..., None])


def _conv(x: Array, weight: Array, bias: Array, **options: Any) -> Array:
    return lax.conv_general_dilated(x, weight, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options) + bias


def _coarser(keep: Array, stride: int) -> Array:
    """Every `stride`-th row and column of keep (N, H, W, 1), by reshaping: XLA's GPU compiler aborts on slices."""
    n, height, width, one = keep.shape
    return keep.reshape(n, height // stride, stride, width // stride, stride, one)[:, :, 0, :, 0]
