"""The linear layers of a block with GELU and GRN between them, in bfloat16 on CUDA.

XLA reads the widest values of the model nine times per block. Here five passes do (`kernels/activation_gpu.py`).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from backends.jax.kernels.activation_gpu import DENSITY, Exp2, Result, Values, map_and_sum, normal_cdf
from backends.jax.norm import root

PRODUCT, SQUARES = "output of a linear layer", "squares summed by a norm"
"""What the backward pass reads, by its names for a checkpoint policy."""

Pair = tuple[Array, Array]


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def gelu_grn(x: Array, expand: Pair, grn: Pair, project: Pair, eps: float, scope: str) -> Array:
    """project(GRN(GELU(expand(x)))) of x (N, S, C), of which every site is visible.

    expand, project: weight (in, out) and bias (out,); grn: gamma and beta, eps and scope as in `spec.GRN`.
    """
    return _forward(x, expand, grn, project, eps, scope)[0]


def _forward(x: Array, expand: Pair, grn: Pair, project: Pair, eps: float, scope: str) -> tuple[Array, Any]:
    h = checkpoint_name(_dense(x, *expand), PRODUCT)  # N S 4C
    (squares,) = map_and_sum(_squares, [h], [])  # N 4C
    squares = checkpoint_name(squares, SQUARES)
    (y,) = map_and_sum(_response, [h], _affine(squares, *grn, eps, scope))
    return _dense(y, *project), (x, h, squares, expand, grn, project)


def _backward(eps: float, scope: str, saved: Any, grad: Array) -> tuple[Array, Pair, Pair, Pair]:
    """One pass computes y again, beside the sums that the gradient of GRN needs; the next has the gradient by h."""
    x, h, squares, expand, grn, project = saved
    by_y = grad @ project[0].astype(x.dtype).T
    affine, pullback = jax.vjp(partial(_affine, eps=eps, scope=scope), squares, *grn)
    y, *sums = map_and_sum(_slopes, [h, by_y], affine)
    by_squares, *by_grn = pullback(tuple(sums))
    by_h, by_bias = map_and_sum(_gradient, [h, by_y], [affine[0], 2 * by_squares])
    by_expand = _weight_gradient(x, by_h), by_bias.sum(0)
    by_project = _weight_gradient(y, grad), grad.sum((0, 1), jnp.float32)
    return by_h @ expand[0].astype(x.dtype).T, by_expand, tuple(by_grn), by_project


gelu_grn.defvjp(_forward, _backward)


def _dense(x: Array, weight: Array, bias: Array) -> Array:
    return x @ weight.astype(x.dtype) + bias.astype(x.dtype)


def _weight_gradient(x: Array, grad: Array) -> Array:
    return jnp.tensordot(x, grad, ((0, 1), (0, 1)), preferred_element_type=jnp.float32)


def _affine(squares: Array, gamma: Array, beta: Array, eps: float, scope: str) -> Pair:
    """GRN as factors and summands (N, D): 1 + gamma * norm / (mean of norm over channels + eps), and beta."""
    norm = root(squares.sum(0, keepdims=True) if scope == "batch" else squares)
    scale = 1 + gamma * (norm / (norm.mean(-1, keepdims=True) + eps))
    return jnp.broadcast_to(scale, squares.shape), jnp.broadcast_to(beta, squares.shape)


def _squares(exp2: Exp2, tiles: Values, _: Values) -> Result:
    (h,) = tiles
    gelu = h * normal_cdf(h, exp2)
    return [], [gelu * gelu]


def _response(exp2: Exp2, tiles: Values, vectors: Values) -> Result:
    (h,), (scale, beta) = tiles, vectors
    return [h * normal_cdf(h, exp2) * scale + beta], []


def _slopes(exp2: Exp2, tiles: Values, vectors: Values) -> Result:
    (h, grad), (scale, beta) = tiles, vectors
    gelu = h * normal_cdf(h, exp2)
    return [gelu * scale + beta], [grad * gelu, grad]


def _gradient(exp2: Exp2, tiles: Values, vectors: Values) -> Result:
    (h, grad), (scale, slope) = tiles, vectors
    cdf = normal_cdf(h, exp2)
    by_h = (grad * scale + h * cdf * slope) * (cdf + h * exp2(h, DENSITY))
    return [by_h], [by_h]
