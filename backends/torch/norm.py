"""GRN and its norm, whose gradient needs care; and the data type that norms and sums are made in."""

from typing import Any

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it is: what norms, sums and losses accumulate in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def safe_norm(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """sqrt(sum of x^2 over axes) in float32 at least, axes kept; the gradient at 0 is 0."""
    return SafeNorm.apply(x, axes)


def respond(x: Tensor, norm: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """y = x * scale + beta, scale = 1 + gamma * norm / (mean of norm over channels + eps)."""
    scale = (1 + gamma * (norm / (norm.mean(-1, keepdim=True) + eps))).to(x.dtype)
    return torch.addcmul(beta.to(x.dtype), x, scale)


def grn(x: Tensor, axes: tuple[int, ...], gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """`respond` with the norm over axes of x: every site of x counts.

    One backward pass over x for all of it: separate operations would write the activations three times more.
    """
    return GRN.apply(x, axes, gamma, beta, eps)[0]


class SafeNorm(torch.autograd.Function):
    """norm = sqrt(sum x^2); dx = x * dnorm / norm."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, axes: tuple[int, ...]) -> Tensor:
        return _norm(x, axes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], norm: Tensor) -> None:
        ctx.save_for_backward(inputs[0], norm)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, norm = ctx.saved_tensors
        return x * torch.where(norm > 0, grad / norm, 0).to(x.dtype), None


class GRN(torch.autograd.Function):
    """y as `respond`, with norm = sqrt(sum x^2); and what the backward pass needs of it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, axes: tuple[int, ...], gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, ...]:
        norm = _norm(x, axes)
        mean = norm.mean(-1, keepdim=True) + eps
        scale = (1 + gamma * (norm / mean)).to(x.dtype)
        return torch.addcmul(beta.to(x.dtype), x, scale), norm, mean, scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
        x, _, gamma, _, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*outputs[1:])
        ctx.save_for_backward(x, gamma, *outputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        x, gamma, norm, mean, scale = ctx.saved_tensors
        by_x, by_scale, by_beta = _scaled_gradients(x, grad, scale)
        response = norm / mean
        by_gamma = (by_scale * response).flatten(0, -2).sum(0)
        by_response = by_scale * gamma
        by_norm = (by_response - (by_response * response).mean(-1, keepdim=True)) / mean
        through_norm = torch.where(norm > 0, by_norm / norm, 0).to(x.dtype)
        return torch.addcmul(by_x, x, through_norm, out=_reusable(by_x)), None, by_gamma, by_beta, None


def _norm(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Squares and a sum: torch's own vector_norm is five times slower over leading axes on CPU."""
    return at_least_float32(x).square().sum(axes, keepdim=True).sqrt()


def _scaled_gradients(x: Tensor, grad: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x * scale + beta: by x, by scale, by beta; the sums in float32 at least."""
    product, wide = grad * x, torch.promote_types(x.dtype, torch.float32)
    by_scale = product.to(wide).sum_to_size(scale.shape)
    free = _reusable(product) if by_scale.numel() < product.numel() else None  # else by_scale is the product
    return torch.mul(grad, scale, out=free), by_scale, grad.to(wide).flatten(0, -2).sum(0)


def _reusable(tensor: Tensor) -> Tensor | None:
    """The tensor as `out` of an operation; None where the backward pass is itself differentiated or batched."""
    return None if torch.is_grad_enabled() else tensor
