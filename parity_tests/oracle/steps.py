"""The rule of every step of the vocabulary, forward and backward, as loops and sums.

Each rule takes (step, its arrays by leaf name, a field) and returns the new field with its
vector-Jacobian product: cotangent of the output -> (cotangent of the input, {leaf: gradient}).
Everything follows the input's dtype, so the same code serves float64 and complex steps.
Notation: N images, H W grid, C channels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import erf

import spec

Leaves = Mapping[str, np.ndarray]
Vjp = Callable[[np.ndarray], tuple[np.ndarray, dict[str, np.ndarray]]]


@dataclass(frozen=True)
class Field:
    """Values (N, H, W, C) and the sites that are visible (N, H, W)."""

    x: np.ndarray
    keep: np.ndarray

    def clear(self, x: np.ndarray) -> np.ndarray:
        """x with exactly 0 at removed sites, whatever stood there, NaN included."""
        return np.where(self.keep[..., None], x, 0)

    @property
    def visible(self) -> np.ndarray:
        return self.clear(self.x)


def patch_conv(step: spec.PatchConv, p: Leaves, field: Field) -> tuple[Field, Vjp]:
    """y[h, w] = bias + sum over i, j of weight[:, :, i, j] @ x[size h + i, size w + j]."""
    x, size = field.visible, step.size
    offsets = [(i, j) for i in range(size) for j in range(size)]
    y = p["bias"] + sum(x[:, i::size, j::size] @ p["weight"][:, :, i, j].T for i, j in offsets)

    def vjp(dy: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        dx, dw = np.zeros_like(x), np.zeros_like(p["weight"])
        for i, j in offsets:
            dx[:, i::size, j::size] = dy @ p["weight"][:, :, i, j]
            dw[:, :, i, j] = np.einsum("nhwo,nhwi->oi", dy, x[:, i::size, j::size])
        return field.clear(dx), {"weight": dw, "bias": dy.sum((0, 1, 2))}

    return Field(y, field.keep[:, ::size, ::size]), vjp


def depthwise_conv(step: spec.DepthwiseConv, p: Leaves, field: Field) -> tuple[Field, Vjp]:
    """y[h, w] = bias + sum over i, j of weight[:, 0, i, j] * x[h + i - pad, w + j - pad], pad = size // 2."""
    x, pad = field.visible, step.size // 2
    height, width = x.shape[1:3]
    margin = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    padded = np.pad(x, margin)
    offsets = [(i, j) for i in range(step.size) for j in range(step.size)]
    y = p.get("bias", 0) + sum(padded[:, i : i + height, j : j + width] * p["weight"][:, 0, i, j] for i, j in offsets)

    def vjp(dy: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        dx, dw = np.zeros_like(padded), np.zeros_like(p["weight"])
        for i, j in offsets:
            window = np.s_[:, i : i + height, j : j + width]
            dx[window] += dy * p["weight"][:, 0, i, j]
            dw[:, 0, i, j] = (dy * padded[window]).sum((0, 1, 2))
        inner = dx[:, pad : pad + height, pad : pad + width]
        return field.clear(inner), {"weight": dw} | ({"bias": dy.sum((0, 1, 2))} if step.bias else {})

    return Field(y, field.keep), vjp


def layer_norm(step: spec.LayerNorm, p: Leaves, field: Field) -> tuple[Field, Vjp]:
    """y = weight * z + bias, z = (x - mean) / sqrt(mean((x - mean)^2) + eps), over the channels of a site."""
    centred = field.x - field.x.mean(-1, keepdims=True)
    root = np.sqrt((centred**2).mean(-1, keepdims=True) + step.eps)
    z = centred / root

    def vjp(dy: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        dz = dy * p["weight"]
        dx = (dz - dz.mean(-1, keepdims=True) - z * (dz * z).mean(-1, keepdims=True)) / root
        return dx, {"weight": (dy * z).sum((0, 1, 2)), "bias": dy.sum((0, 1, 2))}

    return Field(p["weight"] * z + p["bias"], field.keep), vjp


def dense(step: spec.Dense, p: Leaves, field: Field) -> tuple[Field, Vjp]:
    """y = weight @ x + bias at every site."""

    def vjp(dy: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        dw = np.einsum("nhwo,nhwi->oi", dy, field.x)
        return dy @ p["weight"], {"weight": dw, "bias": dy.sum((0, 1, 2))}

    return Field(field.x @ p["weight"].T + p["bias"], field.keep), vjp


def gelu(step: spec.Gelu, p: Leaves, field: Field) -> tuple[Field, Vjp]:
    """y = x Phi(x); dy/dx = Phi(x) + x phi(x)."""
    x = field.x
    cumulative = (1 + erf(x / np.sqrt(2.0))) / 2

    def vjp(dy: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
        return dy * (cumulative + x * density), {}

    return Field(x * cumulative, field.keep), vjp


def grn(step: spec.GRN, p: Leaves, field: Field) -> tuple[Field, Vjp]:
    """y = gamma x n + beta + x, n = G / m, G = sqrt(sum over visible sites of x^2), m = mean over channels of G + eps.

    Backward, with a = sum over sites of dy gamma x (the cotangent of n): dG = a / m - mean(a G) / m^2
    and d(sum of squares)/dx gives dx = dy (gamma n + 1) + dG x / G, 0 where G = 0.
    """
    x = field.x if step.scope == "grid" else field.visible
    axes = {"image": (1, 2), "grid": (1, 2), "batch": (0, 1, 2)}[step.scope]
    norm = np.sqrt((x**2).sum(axes, keepdims=True))
    mean = norm.mean(-1, keepdims=True) + step.eps
    n = norm / mean

    def vjp(dy: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        a = (dy * p["gamma"] * x).sum(axes, keepdims=True)
        dnorm = a / mean - (a * norm).mean(-1, keepdims=True) / mean**2
        slope = np.divide(dnorm, norm, out=np.zeros_like(dnorm), where=norm != 0)
        gradients = {"gamma": (dy * x * n).sum((0, 1, 2)), "beta": dy.sum((0, 1, 2))}
        return dy * (p["gamma"] * n + 1) + slope * x, gradients

    return Field(p["gamma"] * x * n + p["beta"] + x, field.keep), vjp


def layer_scale(step: spec.LayerScale, p: Leaves, field: Field) -> tuple[Field, Vjp]:
    """y = gamma x at every site."""

    def vjp(dy: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return dy * p[""], {"": (dy * field.x).sum((0, 1, 2))}

    return Field(p[""] * field.x, field.keep), vjp


def fill_removed(step: spec.FillRemoved, p: Leaves, field: Field) -> tuple[Field, Vjp]:
    """y = x at visible sites, the mask token at removed ones; from here on every site is visible."""
    removed = ~field.keep[..., None]

    def vjp(dy: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return field.clear(dy), {"": np.where(removed, dy, 0).sum((0, 1, 2))}

    return Field(np.where(removed, p[""], field.x), np.ones_like(field.keep)), vjp


def global_pool(step: spec.GlobalPool, p: Leaves, field: Field) -> tuple[Field, Vjp]:
    """y = mean over the visible sites of an image; the grid becomes 1 x 1."""
    count = field.keep.sum((1, 2)).reshape(-1, 1, 1, 1)
    y = field.visible.sum((1, 2), keepdims=True) / count

    def vjp(dy: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return field.clear(np.broadcast_to(dy / count, field.x.shape)), {}

    return Field(y, np.ones(y.shape[:3], bool)), vjp


def residual(x: np.ndarray, branch: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, Vjp]:
    """y = x + factor branch; the product's first cotangent is x's, that of the branch is called "branch"."""

    def vjp(dy: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return dy, {"branch": dy * factor}

    return x + factor * branch, vjp
