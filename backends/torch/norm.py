"""GRN and its norm, whose gradient needs care; and the dtype in which norms and sums accumulate."""

import inspect
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
    _, scale = _statistics(norm, gamma, eps, x.dtype)
    return torch.addcmul(beta.to(x.dtype), x, scale)


def grn(x: Tensor, axes: tuple[int, ...], gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """`respond` with the norm over axes of x: every site of x counts.

    One backward pass over x for all of it: separate operations would write the activations three times more.
    """
    return GRN.apply(x, axes, gamma, beta, eps)[0]


class Function(torch.autograd.Function):
    """An autograd function that torch.func.vmap can map, whose arguments torch reads from a signature made once."""

    generate_vmap_rule = True

    def __init_subclass__(cls) -> None:
        cls.forward.__signature__ = inspect.signature(cls.forward)  # type: ignore[attr-defined]


class SafeNorm(Function):
    """norm = sqrt(sum x^2); dx = x * dnorm / norm."""

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


class GRN(Function):
    """y as `respond`, with norm = sqrt(sum x^2); and the values that the backward pass needs."""

    @staticmethod
    def forward(x: Tensor, axes: tuple[int, ...], gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, ...]:
        norm = _norm(x, axes)
        mean, scale = _statistics(norm, gamma, eps, x.dtype)
        return torch.addcmul(beta.to(x.dtype), x, scale), norm, mean, scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
        x, _, gamma, _, _ = inputs
        _, ctx.axes, _, _, ctx.eps = inputs
        ctx.mark_non_differentiable(*outputs[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, gamma, *outputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 5
        x, gamma, norm, mean, scale = ctx.saved_tensors
        if is_differentiated():  # as functions of x and gamma
            norm = safe_norm(x, ctx.axes)
            mean, scale = _statistics(norm, gamma, ctx.eps, x.dtype)
        by_x, by_scale, by_beta = _scaled_gradients(x, grad, scale)
        response = norm / mean
        by_gamma = (by_scale * response).flatten(0, -2).sum(0)
        by_response = by_scale * gamma
        by_norm = (by_response - (by_response * response).mean(-1, keepdim=True)) / mean
        through_norm = torch.where(norm > 0, by_norm / norm, 0).to(x.dtype)
        return torch.addcmul(by_x, x, through_norm, out=_reusable(by_x)), None, by_gamma, by_beta, None


def is_differentiated() -> bool:
    """Whether the backward pass that runs is itself differentiated: by create_graph, or within torch.func."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _statistics(norm: Tensor, gamma: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The mean of the norm over channels + eps, and the scale of x in its dtype."""
    mean = norm.mean(-1, keepdim=True) + eps
    return mean, (1 + gamma * (norm / mean)).to(dtype)


def _norm(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Squares and a sum: torch's own vector_norm is five times slower over leading axes on CPU."""
    return at_least_float32(x).square().sum(axes, keepdim=True).sqrt()


def _scaled_gradients(x: Tensor, grad: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x * scale + beta: by x, by scale, by beta; the sums in float32 at least."""
    product, wide = grad * x, torch.promote_types(x.dtype, torch.float32)
    by_scale = product.to(wide).sum_to_size(scale.shape)
    free = _reusable(product) if by_scale.numel() < product.numel() else None  # else by_scale is the product
    by_beta = grad.to(wide).sum_to_size(scale.shape).flatten(0, -2).sum(0)  # first as by_scale, in one pass with it
    return torch.mul(grad, scale, out=free), by_scale, by_beta


def _reusable(tensor: Tensor) -> Tensor | None:
    """The tensor as `out` of an operation; None where the backward pass is itself differentiated."""
    return None if torch.is_grad_enabled() else tensor
