"""GRN: its norm, whose gradient needs care, and what it does to activations in one pass each way."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch.kernels import asked_for

kernels: Any = None
if asked_for():
    from backends.torch.kernels import grn as kernels


def safe_norm(x: Tensor, axes: tuple[int, ...], squares: Tensor | None = None) -> Tensor:
    """sqrt(sum of x^2 over axes) in float32 at least, axes kept; the gradient at 0 is 0.

    Squares and a sum: torch's own vector_norm is five times slower over leading axes on CPU.
    squares (N, C), where `gelu` has summed them already, spare the pass, and there is no gradient.
    """
    return SafeNorm.apply(x, axes) if squares is None else _over(squares, axes, x).sqrt()


class SafeNorm(torch.autograd.Function):
    """norm = sqrt(sum x^2); dx = x * dnorm / norm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = x.to(wide).square().sum(axes, keepdim=True).sqrt()
        ctx.save_for_backward(x, norm)
        return norm

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, norm = ctx.saved_tensors
        return x * torch.where(norm > 0, grad / norm, 0).to(x.dtype), None


def gelu(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Exact GELU of x (N, ..., C); the kernel gives the sum of its squares (N, C) as well."""
    return GeluSquares.apply(x) if x.is_cuda and kernels else (F.gelu(x), None)


class GeluSquares(torch.autograd.Function):
    """y = gelu(x), and squares = sum y^2, through which no gradient passes: `Respond` sees to it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x)
        y, squares = kernels.gelu_and_squares(x.flatten(1, -2).contiguous())
        ctx.mark_non_differentiable(squares)
        return y.view(x.shape), squares

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Tensor:
        return torch.ops.aten.gelu_backward(grad, *ctx.saved_tensors)


def respond(x: Tensor, norm: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """GRN of x (N, ..., C) at once, given the norm of these very sites; the gradient passes through the norm too.

    As separate operations the backward pass would write activations three times more than it must.
    """
    return Respond.apply(x, norm.detach(), gamma, beta, eps)


class Respond(torch.autograd.Function):
    """y = x * scale + beta, scale = 1 + gamma * response, response = norm / (mean of norm + eps)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        mean = norm.mean(-1, keepdim=True) + eps
        scale = (1 + gamma * (norm / mean)).to(x.dtype)
        ctx.save_for_backward(x, norm, mean, scale, gamma)
        return torch.addcmul(beta.to(x.dtype), x, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, norm, mean, scale, gamma = ctx.saved_tensors
        by_x, by_scale, by_beta = _scaled_gradients(x, grad, scale)
        response = norm / mean
        by_gamma = (by_scale * response).flatten(0, -2).sum(0)
        by_response = by_scale * gamma
        by_norm = (by_response - (by_response * response).mean(-1, keepdim=True)) / mean
        by_x.addcmul_(x, torch.where(norm > 0, by_norm / norm, 0).to(x.dtype))
        return by_x, None, by_gamma, by_beta, None


def _scaled_gradients(x: Tensor, grad: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x * scale + beta: by x, by scale, by beta; the sums in float32 at least."""
    if x.is_cuda and kernels:
        return _gradients_by_kernel(x, grad, scale)
    wide = torch.promote_types(x.dtype, torch.float32)
    product = grad * x
    by_scale = product.to(wide).sum_to_size(scale.shape)
    room = product if by_scale.numel() < product.numel() else None  # summed up, its memory is free
    return torch.mul(grad, scale, out=room), by_scale, grad.to(wide).flatten(0, -2).sum(0)


def _over(squares: Tensor, axes: tuple[int, ...], x: Tensor) -> Tensor:
    """Sums an image (N, C) as sums over axes of x, which are kept."""
    total = squares.sum(0, keepdim=True) if 0 in axes else squares
    return total.view(len(total), *(1 for _ in x.shape[1:-1]), x.shape[-1])


def _gradients_by_kernel(x: Tensor, grad: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    flat = x.flatten(1, -2).contiguous(), grad.flatten(1, -2).contiguous(), scale.flatten(0, -2)
    by_x, by_scale, by_beta = kernels.scaled_gradients(*flat)
    return by_x.view(x.shape), by_scale.sum_to_size(flat[2].shape).view(scale.shape), by_beta.sum(0)
