"""The closed vocabulary of steps: every model is a nested tuple of these.

Each docstring is the definition of its step, which both backends and the numpy oracle follow.
Notation: N images, H W grid, C channels, V the visible sites of an image.
std: standard deviation of the first weights; None: weights and biases start as torch.nn's own (`_layer`).
A model is `Named`: ("name", step) pairs in the order of execution, names dotted.
"""

import math
from dataclasses import dataclass
from typing import Literal

BlockKind = Literal["v1", "v2"]
GRNScope = Literal["image", "batch", "grid"]

STD = 0.02
"""The published standard deviation of first weights."""


@dataclass(frozen=True)
class Draw:
    """A distribution around 0: of standard deviation `scale` (truncated at +-2, or not), or uniform within +-scale."""

    kind: Literal["trunc_normal", "normal", "uniform"]
    scale: float


Init = Draw | float
"""A distribution, or the value of every entry."""


@dataclass(frozen=True)
class Array:
    """One learnt array: semantic axes and sizes in canonical order, first value, decay."""

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    init: Init
    decays: bool

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)


def _vector(size: int, init: Init = 0.0) -> Array:
    return Array(("ch",), (size,), init, decays=False)


def _layer(axes: str, *shape: int, std: float | None) -> dict[str, Array]:
    """Weight and bias: truncated normal and 0, or, if std is None, both uniform within +-1 / sqrt(inputs of a sum)."""
    draw = Draw("uniform", math.prod(shape[1:]) ** -0.5) if std is None else Draw("trunc_normal", std)
    weight = Array(tuple(axes.split()), shape, draw, decays=True)
    return {"weight": weight, "bias": _vector(shape[0], draw if std is None else 0.0)}


@dataclass(frozen=True)
class PatchConv:
    """y = conv(x, weight) + bias; kernel and stride `size`, no padding.

    A spatial step. Windows never cross a patch; the input at removed sites counts as 0.
    """

    in_chans: int
    out_chans: int
    size: int
    std: float = STD

    def arrays(self) -> dict[str, Array]:
        return _layer("out in kh kw", self.out_chans, self.in_chans, self.size, self.size, std=self.std)


@dataclass(frozen=True)
class DepthwiseConv:
    """y_c = conv2d(x_c, weight_c) + bias_c; one odd kernel per channel, stride 1, zero padding size // 2.

    A spatial step: the input at removed sites counts as 0. Without `bias`, bias_c is 0 and not learnt.
    """

    channels: int
    size: int = 7
    bias: bool = True
    std: float | None = STD

    def arrays(self) -> dict[str, Array]:
        arrays = _layer("ch one kh kw", self.channels, 1, self.size, self.size, std=self.std)
        return arrays if self.bias else {"weight": arrays["weight"]}


@dataclass(frozen=True)
class LayerNorm:
    """y = weight * (x - mean) / sqrt(var + eps) + bias over the channels of a site.

    var is biased and two-pass: mean((x - mean)^2). Accumulates in float32 at least.
    """

    channels: int
    eps: float

    def arrays(self) -> dict[str, Array]:
        return {"weight": _vector(self.channels, 1.0), "bias": _vector(self.channels)}


@dataclass(frozen=True)
class Dense:
    """y = weight @ x + bias over the channels of a site."""

    in_chans: int
    out_chans: int
    std: float | None = STD

    def arrays(self) -> dict[str, Array]:
        return _layer("out in", self.out_chans, self.in_chans, std=self.std)


@dataclass(frozen=True)
class Gelu:
    """y = x * Phi(x), Phi the exact normal distribution function (erf, never tanh)."""

    def arrays(self) -> dict[str, Array]:
        return {}


@dataclass(frozen=True)
class GRN:
    """y = gamma * (x * Nx) + beta + x, with Nx = G / (mean over channels of G + eps).

    G_c = sqrt(sum of x_c^2 over the visible sites V of one image (scope "image"), of the whole
    batch (scope "batch", as in the released sparse code), or over the whole grid of an image
    (scope "grid", as in masked dense code: a removed site holds what the block made of an input
    of 0 there, and only engine "masked" computes it). No eps inside the root; the subgradient
    at G_c = 0 is 0. Sums accumulate in float32 at least.
    """

    channels: int
    eps: float
    scope: GRNScope

    def arrays(self) -> dict[str, Array]:
        return {"gamma": _vector(self.channels), "beta": _vector(self.channels)}


@dataclass(frozen=True)
class LayerScale:
    """y = gamma * x, one gamma per channel, which starts at `init`."""

    channels: int
    init: float

    def arrays(self) -> dict[str, Array]:
        return {"": _vector(self.channels, self.init)}


@dataclass(frozen=True)
class Residual:
    """y = x + keep / (1 - drop_path) * body(x); keep is 0 or 1 per image, drawn outside; 1 in evaluation.

    `index` is the block's column in the batch's array of keep decisions.
    """

    body: "Named"
    drop_path: float
    index: int

    def arrays(self) -> dict[str, Array]:
        return {}


@dataclass(frozen=True)
class FillRemoved:
    """Removed sites become the learnt mask token, and every site counts as visible from here on."""

    channels: int

    def arrays(self) -> dict[str, Array]:
        return {"": _vector(self.channels, Draw("normal", STD))}


@dataclass(frozen=True)
class GlobalPool:
    """y = mean over the visible sites of an image: (N, H, W, C) -> (N, C)."""

    def arrays(self) -> dict[str, Array]:
        return {}


Step = PatchConv | DepthwiseConv | LayerNorm | Dense | Gelu | GRN | LayerScale | Residual | FillRemoved | GlobalPool
Named = tuple[tuple[str, Step], ...]
