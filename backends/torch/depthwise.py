"""The depthwise convolution on visible patches, through their halos.

Forward and both gradients are gathers followed by dense work: nothing is scattered, and
every convolution computes at visible sites only.
"""

import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

kernels: Any = None  # the plain form serves CUDA too; the kernels, which no GPU has run yet, are for who asks
if os.environ.get("TWINNEXT_TRITON") == "1":
    from backends.torch.kernels import depthwise as kernels


def halo_conv(x: Tensor, weight: Tensor, bias: Tensor, halo: Tensor) -> Tensor:
    """Depthwise convolution of x (N, K, P, P, C) with weight (C, 1, k, k); halo as `Layout.halo`."""
    return HaloConv.apply(x, weight, bias, halo)


class HaloConv(torch.autograd.Function):
    """y = conv(halo of x); dx = conv(halo of dy) with the kernel turned by 180 degrees."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, halo: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, halo)
        return _conv(x, weight, bias, halo)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, halo = ctx.saved_tensors
        grad = grad.contiguous()
        dx = _conv(grad, weight.flip(2, 3), None, halo)
        dweight = _weight_gradient(x, grad, weight, halo)
        return dx, dweight, grad.sum((0, 1, 2, 3)), None


def _tiles(x: Tensor, halo: Tensor) -> Tensor:
    """The halos of all patches: (N * K, C, Q, Q), channels last in memory."""
    return _rows(x, halo).permute(0, 3, 1, 2)


def _rows(x: Tensor, halo: Tensor) -> Tensor:
    """The sites of x that entries of halo name, and zeros where they name none: (*halo.shape, C)."""
    channels = x.shape[-1]
    rows = torch.cat([x.reshape(-1, channels), x.new_zeros(1, channels)])
    return rows.index_select(0, halo.flatten()).view(*halo.shape, channels)


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, halo: Tensor) -> Tensor:
    if x.is_cuda and kernels:
        return kernels.conv(x, weight, bias, halo)
    y = F.conv2d(_tiles(x, halo), weight, bias, groups=weight.shape[0])  # N*K C P P
    return y.permute(0, 2, 3, 1).reshape(x.shape)


def _weight_gradient(x: Tensor, grad: Tensor, weight: Tensor, halo: Tensor) -> Tensor:
    """dw (C, 1, k, k): each tile against the gradient of its own patch, summed over tiles."""
    if grad.device.type == "cpu":
        return _tile_gradient(x, grad, halo)
    if grad.is_cuda and kernels:
        return kernels.weight_gradient(x, grad, weight, halo)
    return _library_gradient(_tiles(x, halo), grad.flatten(0, 1).permute(0, 3, 1, 2), weight)


def _library_gradient(tiles: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    options = [1, 1], [0, 0], [1, 1], False, [0, 0], weight.shape[0]
    return torch.ops.aten.convolution_backward(grad, tiles, weight, None, *options, [False, True, False])[1]


def _tile_gradient(x: Tensor, grad: Tensor, halo: Tensor) -> Tensor:
    """One image whose channels are those of all tiles, convolved with the gradients of their patches; then a sum.

    A forward depthwise convolution, which oneDNN does two to seven times faster than its own weight gradient.
    """
    (tiles, reach, _), (side, channels) = halo.shape, grad.shape[-2:]
    image = _rows(x, halo.permute(1, 2, 0)).view(1, reach, reach, -1)  # 1 Q Q N*K*C
    kernels = grad.flatten(0, 1).permute(0, 3, 1, 2).reshape(-1, 1, side, side)  # N*K*C 1 P P
    each = F.conv2d(image.permute(0, 3, 1, 2), kernels, groups=tiles * channels)
    return each.permute(0, 2, 3, 1).unflatten(-1, (tiles, channels)).sum(3).permute(3, 0, 1, 2)
