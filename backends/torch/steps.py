"""The steps of the spec as torch modules.

Pointwise steps (LayerNorm, Dense, Gelu) map x to x. Spatial steps take (x, space), and return both
where the space of x changes; a space computes what a step asks of it (see `space/`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import spec
from backends.torch.gelu import gelu
from backends.torch.norm import at_least_float32
from backends.torch.space.protocol import Space

Record = Callable[[str, Tensor, Space], None]


@dataclass(frozen=True)
class Call:
    """Options of one forward pass, passed down to every block."""

    record: Record | None = None  # called with the path, x and space of every step
    keep_paths: Tensor | None = None  # N blocks, 1 = keep
    remat: bool = False  # recompute the activations inside a block in the backward pass

    def inside(self, name: str) -> "Call":
        """The same call one level down, where paths begin with `name`."""
        record = self.record
        if record is None:
            return self
        return replace(self, record=lambda path, x, space: record(f"{name}.{path}", x, space))


class Step(nn.Module):
    """A module holding the arrays that the spec declares for its step."""

    def __init__(self, step: spec.Step) -> None:
        super().__init__()
        for name, array in step.arrays().items():
            self.register_parameter(name, nn.Parameter(torch.empty(array.shape)))


class LayerNorm(Step):
    """Normalise the channels of each site."""

    weight: Tensor
    bias: Tensor

    def __init__(self, step: spec.LayerNorm) -> None:
        super().__init__(step)
        self.eps = step.eps

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
        return F.layer_norm(wide, weight.shape, weight, bias, self.eps).to(x.dtype)


class Dense(Step):
    """Linear layer on the channels of each site."""

    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class Gelu(Step):
    """Exact GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)


def _stored(weight: Tensor) -> Tensor:
    """The same weight, by views that give its gradient the strides of a contiguous array, as DDP asks."""
    return weight.flatten(1).view(weight.shape)


class PatchConv(Step):
    """Non-overlapping convolution."""

    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor, space: Space) -> tuple[Tensor, Space]:
        return space.patch_conv(x, _stored(self.weight).to(x.dtype), self.bias.to(x.dtype))


class DepthwiseConv(Step):
    """One kernel per channel; the only step that looks at neighbours."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, step: spec.DepthwiseConv) -> None:
        super().__init__(step)
        if not step.bias:
            self.bias = None

    def forward(self, x: Tensor, space: Space) -> Tensor:
        bias = x.new_zeros(x.shape[-1]) if self.bias is None else self.bias.to(x.dtype)
        return space.depthwise_conv(x, _stored(self.weight).to(x.dtype), bias)


class GRN(Step):
    """Global response normalisation."""

    gamma: Tensor
    beta: Tensor

    def __init__(self, step: spec.GRN) -> None:
        super().__init__(step)
        self.eps, self.scope = step.eps, step.scope

    def forward(self, x: Tensor, space: Space) -> Tensor:
        return space.grn(x, self.gamma, self.beta, self.eps, self.scope)


class GlobalPool(Step):
    """Mean over the visible sites of each image."""

    def forward(self, x: Tensor, space: Space) -> tuple[Tensor, Space]:
        return space.pool(x)


def vector(step: spec.FillRemoved | spec.LayerScale) -> nn.Parameter:
    """The mask token, or the factors of a LayerScale: a bare parameter, since its path is its step's own."""
    return nn.Parameter(torch.empty(step.channels))


class Chain(nn.Module):
    """Steps in the order of execution, registered under their dotted names."""

    def __init__(self, steps: spec.Named) -> None:
        super().__init__()
        self.names = tuple(name for name, _ in steps)
        self.kinds = {name: type(step) for name, step in steps}
        for name, step in steps:
            *parents, leaf = name.split(".")
            owner: nn.Module = self
            for part in parents:
                if not hasattr(owner, part):
                    owner.add_module(part, nn.Module())
                owner = getattr(owner, part)
            setattr(owner, leaf, MODULES[type(step)](step))

    def run(self, names: tuple[str, ...], x: Tensor, space: Space, call: Call) -> tuple[Tensor, Space]:
        """x and its space after the named steps, each recorded under its name."""
        for name in names:
            x, space = _apply(self.kinds[name], self._at(name), x, space, call.inside(name))
            if call.record is not None:
                call.record(name, x, space)
        return x, space

    def _at(self, name: str) -> Any:
        step: Any = self
        for part in name.split("."):
            step = getattr(step, part)
        return step


class Residual(Chain):
    """The input plus the output of its own chain, which drop path may leave out per image."""

    def __init__(self, step: spec.Residual) -> None:
        super().__init__(step.body)
        self.drop_path, self.index = step.drop_path, step.index

    def forward(self, x: Tensor, space: Space, call: Call | None = None, factor: Tensor | None = None) -> Tensor:
        """factor (N,): multiplies the output of the chain, per image."""
        call = call or Call()
        if call.remat and call.record is None:
            body = checkpoint(self._body, x, space, call, use_reentrant=False, preserve_rng_state=False)
        else:
            body = self._body(x, space, call)
        return x + body if factor is None else x + body * space.broadcast(factor)

    def factor(self, dtype: torch.dtype, call: Call) -> Tensor | None:
        """1 / (1 - rate) where drop path keeps the chain and 0 where not, per image; None where it always does.

        Apart from `forward`, so that compiled blocks do not depend on their index.
        """
        if call.keep_paths is None or not self.drop_path:
            return None
        return call.keep_paths[:, self.index].to(dtype) / (1 - self.drop_path)

    def _body(self, x: Tensor, space: Space, call: Call) -> Tensor:
        return self.run(self.names, x, space, call)[0]


def _apply(kind: type[spec.Step], step: Any, x: Tensor, space: Space, call: Call) -> tuple[Tensor, Space]:
    """x and its space after one step of a kind: a module, or a bare parameter."""
    if kind is spec.FillRemoved:
        return space.fill(x, step.to(x.dtype))
    if kind is spec.LayerScale:
        return x * step.to(x.dtype), space
    if isinstance(step, PatchConv | GlobalPool):
        return cast(tuple[Tensor, Space], step(x, space))
    if isinstance(step, DepthwiseConv | GRN):
        return step(x, space), space
    if isinstance(step, Residual):
        return step(x, space, call, step.factor(x.dtype, call)), space
    return step(x), space


MODULES: dict[type, Callable[[Any], nn.Module | nn.Parameter]] = {
    spec.PatchConv: PatchConv,
    spec.DepthwiseConv: DepthwiseConv,
    spec.LayerNorm: LayerNorm,
    spec.Dense: Dense,
    spec.Gelu: Gelu,
    spec.GRN: GRN,
    spec.Residual: Residual,
    spec.FillRemoved: vector,
    spec.LayerScale: vector,
    spec.GlobalPool: GlobalPool,
}
"""The module, or the parameter, of every step of the spec."""
