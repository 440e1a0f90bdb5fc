"""Engine "visible": visible patches only, and where they lie. K is static, so every shape is.

Pointwise steps, norms and 2x2 convolutions stay inside the patches. Only the depthwise
convolution looks outside, through a halo: each patch with a border of its neighbours' sites.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from backends.jax.depthwise import visible_conv
from backends.jax.kernels import Kernels
from backends.jax.linear import product
from backends.jax.norm import at_least_float32, respond, row_major, safe_norm
from backends.jax.space.dense import DenseSpace
from backends.jax.space.patches import Layout, Neighbours, pytree, side_of
from backends.jax.space.protocol import Space


@pytree(static=("kernel_size", "kernels"))
class VisibleSpace(NamedTuple):
    """The visible patches that `layout` lists, and no other site.

    x is (N, K * P * P, C), patch after patch, row-major in each. One axis for all sites of an
    image: a TPU would pad a last but one axis of P = 1 to 16.
    """

    layout: Layout
    kernel_size: int  # of the depthwise convolutions
    kernels: Kernels  # whose Pallas kernels compute these
    halo: Array | None = None  # for this stage's P; None before the stem

    def grid(self, x: Array) -> Array:
        return self.layout.scatter(x, jnp.zeros((), x.dtype))

    def broadcast(self, values: Array) -> Array:
        return values.reshape(-1, 1, 1)

    def patch_conv(self, x: Array, weight: Array, bias: Array) -> tuple[Array, Space]:
        n, _, channels = x.shape
        size, _, _, out = weight.shape
        cells = side_of(x, self.layout.visible) // size
        windows = x.reshape(n, -1, cells, size, cells, size, channels).swapaxes(3, 4)
        matrix = weight.reshape(-1, out)  # (kh kw in), out
        halo = self.layout.halo(cells, self.kernel_size // 2)
        return product(windows.reshape(n, -1, len(matrix)), matrix) + bias, self._replace(halo=halo)

    def depthwise_conv(self, x: Array, weight: Array, bias: Array) -> Array:
        assert self.halo is not None
        where = Neighbours(self.halo, self.layout.index, self.layout.slot)
        return visible_conv(x, weight, bias, where, self.kernels)

    def grn(self, x: Array, gamma: Array, beta: Array, eps: float, scope: str) -> Array:
        axes = (0, 1) if scope == "batch" else (1,)
        x = row_major(x, self.kernels)
        return respond(x, safe_norm(x, axes), gamma, beta, eps)

    def fill(self, x: Array, token: Array) -> tuple[Array, Space]:
        return self.layout.scatter(x, token), DenseSpace(self.kernels)

    def pool(self, x: Array) -> tuple[Array, Space]:
        return at_least_float32(x).mean(1).astype(x.dtype), DenseSpace(self.kernels)


def enter(
    images: Array, mask: Array, visible: int, *, kernel_size: int, kernels: Kernels
) -> tuple[Array, VisibleSpace]:
    """The visible patches of images (N, H, W, C) and their space; mask (N, G_h, G_w), 1 = removed, keeps `visible`."""
    layout = Layout.of(mask, visible)
    return layout.gather(images), VisibleSpace(layout, kernel_size, kernels)
