"""The steps of the spec as torch modules: parameters, plus one line on the sites they act on.

A module never knows how space is stored: the sites object does (see `sites/`).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import spec
from backends.torch.norm import gelu, respond


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32 at least: what norms, sums and losses accumulate in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Call:
    """Arguments of one forward pass, handed down to every step."""

    def __init__(
        self,
        record: Callable[[str, Any], None] | None = None,
        keep_paths: Tensor | None = None,
        remat: bool = False,
    ) -> None:
        self.record = record
        self.keep_paths = keep_paths  # N blocks, 1 = keep
        self.remat = remat  # compute the insides of a block again in its backward pass, instead of keeping them

    def inside(self, name: str) -> "Call":
        """The same call one level down, where paths begin with `name`."""
        record = self.record
        if record is None:
            return self
        return Call(lambda path, sites: record(f"{name}.{path}", sites), self.keep_paths, self.remat)


class Step(nn.Module):
    """A module holding the arrays that the spec declares for its step."""

    def __init__(self, step: spec.Step) -> None:
        super().__init__()
        for name, array in step.arrays().items():
            self.register_parameter(name, nn.Parameter(torch.empty(array.shape)))


def token(step: spec.FillRemoved) -> nn.Parameter:
    """The learnt vector that fills removed sites: a bare parameter, since its path is its own name."""
    return nn.Parameter(torch.empty(step.channels))


class PatchConv(Step):
    """Non-overlapping convolution."""

    weight: Tensor
    bias: Tensor

    def forward(self, sites: Any) -> Any:
        return sites.patch_conv(self.weight.to(sites.dtype), self.bias.to(sites.dtype))


class DepthwiseConv(Step):
    """One kernel a channel; the only step that looks at neighbours."""

    weight: Tensor
    bias: Tensor

    def forward(self, sites: Any) -> Any:
        return sites.depthwise_conv(self.weight.to(sites.dtype), self.bias.to(sites.dtype))


class LayerNorm(Step):
    """Normalise the channels of each site."""

    weight: Tensor
    bias: Tensor

    def __init__(self, step: spec.LayerNorm) -> None:
        super().__init__(step)
        self.eps = step.eps

    def forward(self, sites: Any) -> Any:
        return sites.map(self.normalise)

    def normalise(self, x: Tensor) -> Tensor:
        return F.layer_norm(at_least_float32(x), self.weight.shape, self.weight, self.bias, self.eps).to(x.dtype)


class Dense(Step):
    """Linear layer on the channels of each site."""

    weight: Tensor
    bias: Tensor

    def forward(self, sites: Any) -> Any:
        weight, bias = self.weight.to(sites.dtype), self.bias.to(sites.dtype)
        return sites.map(lambda x: F.linear(x, weight, bias))


class Gelu(Step):
    """Exact GELU."""

    def forward(self, sites: Any) -> Any:
        if not sites.only_visible:
            return sites.map(F.gelu)
        x, squares = gelu(sites.x)
        sites = sites.map(lambda _: x)
        sites.squares = squares
        return sites


class GRN(Step):
    """Global response normalisation."""

    gamma: Tensor
    beta: Tensor

    def __init__(self, step: spec.GRN) -> None:
        super().__init__(step)
        self.eps, self.scope = step.eps, step.scope

    def forward(self, sites: Any) -> Any:
        norm = sites.spatial_norm(self.scope)  # N 1 .. 1 C
        if sites.only_visible:
            return sites.map(lambda x: respond(x, norm, self.gamma, self.beta, self.eps))
        response = norm / (norm.mean(-1, keepdim=True) + self.eps)
        scale = (1 + self.gamma * response).to(sites.dtype)
        shift = self.beta.to(sites.dtype)
        return sites.map(lambda x: torch.addcmul(shift, x, scale))


class GlobalPool(Step):
    """Mean over the visible sites of an image."""

    def forward(self, sites: Any) -> Any:
        return sites.pool()


class Chain(nn.Module):
    """Steps in the order of execution, registered under their dotted names.

    A tensor standing alone in a chain is the mask token: it fills the removed sites.
    """

    def __init__(self, steps: spec.Named, make: Callable[[spec.Step], nn.Module | nn.Parameter]) -> None:
        super().__init__()
        self.names = tuple(name for name, _ in steps)
        for name, step in steps:
            *parents, leaf = name.split(".")
            owner: nn.Module = self
            for part in parents:
                if not hasattr(owner, part):
                    owner.add_module(part, nn.Module())
                owner = getattr(owner, part)
            setattr(owner, leaf, make(step))

    def run(self, names: tuple[str, ...], sites: Any, call: Call) -> Any:
        """The sites after the named steps, each recorded under its name."""
        for name in names:
            step: Any = self
            for part in name.split("."):
                step = getattr(step, part)
            if isinstance(step, Tensor):
                sites = sites.fill(step.to(sites.dtype))
            elif isinstance(step, Chain):
                sites = step(sites, call.inside(name))
            else:
                sites = step(sites)
            if call.record is not None:
                call.record(name, sites)
        return sites


class Residual(Chain):
    """The input plus its own chain's output, dropped an image at a time in training."""

    def __init__(self, step: spec.Residual, make: Callable[[spec.Step], nn.Module | nn.Parameter]) -> None:
        super().__init__(step.body, make)
        self.body, self.drop_path, self.index = step.body, step.drop_path, step.index

    def forward(self, sites: Any, call: Call) -> Any:
        sites = sites.prepare(dict(self.body))
        if call.remat and call.record is None:
            x = checkpoint(lambda: self.run(self.names, sites, call).x, use_reentrant=False, preserve_rng_state=False)
            body = sites.map(lambda _: x)
        else:
            body = self.run(self.names, sites, call)
        if call.keep_paths is None or not self.drop_path:
            return sites.plus(body)
        keep = call.keep_paths[:, self.index].to(sites.dtype)
        return sites.plus(body, keep / (1 - self.drop_path))
