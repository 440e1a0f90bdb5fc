"""GELU and GRN, whose gradients need care; and the dtype in which norms and sums accumulate."""

import math

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.layout import Layout, with_layout_constraint

from backends.jax.kernels import Kernels


def at_least_float32(x: Array) -> Array:
    """x in float32, or in float64 if it is: what norms, sums and losses accumulate in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def gelu(x: Array) -> Array:
    """x * Phi(x), by erf: GPUs write every branch of the erfc in `jax.nn.gelu` to memory, in float32."""
    wide = at_least_float32(x)
    return (wide * (1 + lax.erf(wide * math.sqrt(0.5))) / 2).astype(x.dtype)


def row_major(x: Array, kernels: Kernels) -> Array:
    """x with its channels last in memory on CUDA, where XLA otherwise transposes what a scan keeps for its gradient."""
    if kernels != "cuda":
        return x
    layout = Layout(major_to_minor=tuple(range(x.ndim)))
    return lax.platform_dependent(x, cuda=lambda x: with_layout_constraint(x, layout), default=lambda x: x)


def safe_norm(x: Array, axes: tuple[int, ...]) -> Array:
    """sqrt(sum of x^2 over axes) in float32 at least, axes kept; the gradient at 0 is 0."""
    return root(jnp.square(at_least_float32(x)).sum(axes, keepdims=True))


def root(total: Array) -> Array:
    """The square root of values from 0 up, whose gradient at 0 is 0.

    Two `where`s: the outer one alone would still pass sqrt's infinite slope on, times 0.
    """
    positive = total > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, total, 1)), 0)


def respond(x: Array, norm: Array, gamma: Array, beta: Array, eps: float) -> Array:
    """y = x * scale + beta, scale = 1 + gamma * norm / (mean of norm over channels + eps)."""
    scale = (1 + gamma * (norm / (norm.mean(-1, keepdims=True) + eps))).astype(x.dtype)
    return x * scale + beta.astype(x.dtype)
