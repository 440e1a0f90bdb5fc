"""The depthwise convolution on visible patches, through their halos, and on whole images on a CPU.

Forward and both gradients are gathers followed by dense work: nothing is scattered.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch.norm import Function, is_differentiated
from backends.torch.space.patches import Halo


def halo_conv(x: Tensor, weight: Tensor, bias: Tensor, halo: Halo, kernels: bool = False) -> Tensor:
    """Depthwise convolution of x (N, K, P, P, C) with weight (C, 1, k, k); halo as `Layout.halo`.

    kernels: use the Triton kernels; x must be on a GPU.
    """
    return HaloConv.apply(x, weight, bias, *halo, kernels)


class HaloConv(Function):
    """y = conv(halo of x); dx = conv(halo of dy) with the kernel turned by 180 degrees."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, rows: Tensor, kept: Tensor | None, kernels: bool) -> Tensor:
        return _conv(x, weight, bias, Halo(rows, kept), kernels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, rows, kept, ctx.kernels = inputs
        ctx.save_for_backward(x, weight, rows, kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *saved = ctx.saved_tensors
        halo, grad = Halo(*saved), grad.contiguous()
        kernels = ctx.kernels and not is_differentiated()  # Triton's results have no gradient
        dx = _conv(grad, weight.flip(2, 3), None, halo, kernels)
        return dx, *_parameter_gradients(x, grad, weight, halo, kernels), None, None, None


def image_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`padded_conv` with a weight gradient that is faster on a CPU."""
    return ImageConv.apply(x, weight, bias)


class ImageConv(Function):
    """The library's convolution and gradient of x, with the gradient of the weight by `_tile_gradient`."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return padded_conv(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dweight: Tensor, dbias: Tensor) -> Tensor:
        x, weight = ctx.saved_tensors
        return padded_conv(dx, weight, dbias) + padded_conv(x, dweight, None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        tiles = F.pad(x, (0, 0, *[weight.shape[-1] // 2] * 4)).permute(1, 2, 0, 3)
        dx = padded_conv(grad, weight.flip(2, 3), None)
        return dx, _tile_gradient(tiles, grad.contiguous()), grad.sum((0, 1, 2))


def padded_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The library's depthwise convolution of x (N, H, W, C), padded with zeros; weight (C, 1, k, k).

    The permuted view is torch's channels_last, so nothing is copied.
    """
    padding = weight.shape[-1] // 2
    return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=padding, groups=len(weight)).permute(0, 2, 3, 1)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """x at the sites of index, 0 where an index is past the end: (*index.shape, C)."""
    channels = x.shape[-1]
    rows = torch.cat([x.reshape(-1, channels), x.new_zeros(1, channels)])
    return rows.index_select(0, index.flatten()).view(*index.shape, channels)


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, halo: Halo, kernels: bool = False) -> Tensor:
    if kernels and not _under_vmap(x, weight, halo.rows):
        from backends.torch.kernels import depthwise  # needs Triton

        return depthwise.conv(x, weight, bias, halo.rows)
    tiles = _rows(x, halo.rows).permute(0, 3, 1, 2)  # T C R Q, channels last in memory
    y = F.conv2d(tiles, weight, bias, groups=weight.shape[0]).permute(0, 2, 3, 1)
    if halo.kept is not None:
        y = y.reshape(-1, x.shape[-1]).index_select(0, halo.kept)
    return y.reshape(x.shape)


def _parameter_gradients(
    x: Tensor, grad: Tensor, weight: Tensor, halo: Halo, kernels: bool = False
) -> tuple[Tensor, Tensor]:
    """dw (C, 1, k, k) and db (C,)."""
    if kernels and not _under_vmap(x, grad, halo.rows):
        from backends.torch.kernels import depthwise  # needs Triton

        return depthwise.parameter_gradients(x, grad, weight, halo.rows)
    return _weight_gradient(x, grad, weight, halo), grad.sum((0, 1, 2, 3))


def _under_vmap(*tensors: Tensor) -> bool:
    """Whether torch.func.vmap has wrapped any of the tensors, which Triton cannot read then."""
    return not torch.compiler.is_compiling() and any(map(torch._C._functorch.is_batchedtensor, tensors))


def _weight_gradient(x: Tensor, grad: Tensor, weight: Tensor, halo: Halo) -> Tensor:
    """dw (C, 1, k, k): each tile against the gradient inside it, summed over tiles."""
    inside = grad.flatten(0, 1) if halo.kept is None else _rows(grad, _inside(halo.rows, weight))
    if grad.device.type == "cpu":
        return _tile_gradient(_rows(x, halo.rows.permute(1, 2, 0)), inside)
    return _library_gradient(_rows(x, halo.rows).permute(0, 3, 1, 2), inside.permute(0, 3, 1, 2), weight)


def _inside(index: Tensor, weight: Tensor) -> Tensor:
    """The tiles without their borders."""
    border = weight.shape[-1] // 2
    return index[:, border : index.shape[1] - border, border : index.shape[2] - border]


def _library_gradient(tiles: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    options = [1, 1], [0, 0], [1, 1], False, [0, 0], weight.shape[0]
    return torch.ops.aten.convolution_backward(grad, tiles, weight, None, *options, [False, True, False])[1]


def _tile_gradient(tiles: Tensor, grad: Tensor) -> Tensor:
    """One image whose channels are those of all tiles, convolved with the gradients inside them; then a sum.

    tiles (R, Q, T, C), grad (T, h, w, C). A forward depthwise convolution, which oneDNN does two to seven times faster
    than its own weight gradient.
    """
    count, height, width, channels = grad.shape
    if height * width == 1:  # oneDNN is 100 times slower with a kernel of one site
        return (tiles * grad.view(count, channels)).sum(2).permute(2, 0, 1).unsqueeze(1)
    kernels = grad.permute(0, 3, 1, 2).reshape(-1, 1, height, width)  # T*C 1 . .
    each = F.conv2d(tiles.flatten(2)[None].permute(0, 3, 1, 2), kernels, groups=count * channels)
    return each.permute(0, 2, 3, 1).unflatten(-1, (count, channels)).sum(3).permute(3, 0, 1, 2)
