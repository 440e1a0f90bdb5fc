"""The one norm whose gradient needs care."""

from typing import Any

import torch
from torch import Tensor

from backends.torch.kernels import asked_for

kernels: Any = None
if asked_for():
    from backends.torch.kernels import grn as kernels


def safe_norm(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """sqrt(sum of x^2 over axes) in float32 at least, axes kept; the gradient at 0 is 0.

    Squares and a sum: torch's own vector_norm is five times slower over leading axes on CPU.
    """
    return SafeNorm.apply(x, axes)


class SafeNorm(torch.autograd.Function):
    """norm = sqrt(sum x^2); dx = x * dnorm / norm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        norm = _sum_of_squares(x, axes).sqrt()
        ctx.save_for_backward(x, norm)
        return norm

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, norm = ctx.saved_tensors
        return x * torch.where(norm > 0, grad / norm, 0).to(x.dtype), None


def scale_shift(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x * scale + shift, of x (N, ..., C), scale (N or 1, 1 .. 1, C) or of x's shape, and shift (C)."""
    return ScaleShift.apply(x, scale, shift)


class ScaleShift(torch.autograd.Function):
    """dx = dy * scale; dscale = sum dy * x; dshift = sum dy: over the sites that share them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return torch.addcmul(shift, x, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, scale = ctx.saved_tensors
        if x.is_cuda and kernels and x.ndim > 2:
            return _gradients_by_kernel(x, grad, scale)
        product = grad * x
        by_scale = product.sum_to_size(scale.shape)
        room = product if by_scale.numel() < product.numel() else None  # summed up, its memory is free
        by_x = torch.mul(grad, scale, out=room)
        return by_x, by_scale, grad.flatten(0, -2).sum(0)


def _sum_of_squares(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    if x.is_cuda and kernels:
        return _squares_by_kernel(x, axes)
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.to(wide).square().sum(axes, keepdim=True)


def _squares_by_kernel(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    total = kernels.sum_of_squares(x.flatten(1, -2).contiguous())
    if 0 in axes:
        total = total.sum(0, keepdim=True)
    return total.view(len(total), *(1 for _ in x.shape[1:-1]), x.shape[-1])


def _gradients_by_kernel(x: Tensor, grad: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    flat = x.flatten(1, -2).contiguous(), grad.flatten(1, -2).contiguous(), scale.flatten(0, -2)
    by_x, by_scale, by_shift = kernels.scaled_gradients(*flat)
    by_scale = by_scale.sum_to_size(flat[2].shape).view(scale.shape)
    return by_x.view(x.shape), by_scale.to(x.dtype), by_shift.sum(0).to(x.dtype)
