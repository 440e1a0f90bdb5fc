"""The steps of the spec as flax.nnx modules: parameters, plus one line on the sites they act on.

A module never knows how space is stored: the sites object does (see `sites/`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

import spec
from backends.jax.layout import permuted


def wide(x: Array) -> Array:
    """x in float32 at least: what norms, sums and losses accumulate in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Call:
    """What one forward pass carries beside the sites: a recorder of taps and the drop-path decisions."""

    def __init__(self, record: Callable[[str, Any], None] | None = None, keep_paths: Array | None = None) -> None:
        self.record = record
        self.keep_paths = keep_paths  # N blocks, 1 = keep

    def inside(self, name: str) -> "Call":
        """The same call one level down, where paths begin with `name`."""
        record = self.record
        if record is None:
            return self
        return Call(lambda path, sites: record(f"{name}.{path}", sites), self.keep_paths)


class Step(nnx.Module):
    """A module holding the arrays that the spec declares for its step."""

    def __init__(self, step: spec.Step) -> None:
        for name, array in step.arrays().items():
            setattr(self, name, nnx.Param(jnp.zeros(permuted(array).shape)))


class PatchConv(Step):
    """Non-overlapping convolution."""

    weight: nnx.Param
    bias: nnx.Param

    def __call__(self, sites: Any) -> Any:
        return sites.patch_conv(self.weight[...].astype(sites.dtype), self.bias[...].astype(sites.dtype))


class DepthwiseConv(Step):
    """One kernel a channel; the only step that looks at neighbours."""

    weight: nnx.Param
    bias: nnx.Param

    def __call__(self, sites: Any) -> Any:
        return sites.depthwise_conv(self.weight[...].astype(sites.dtype), self.bias[...].astype(sites.dtype))


class LayerNorm(Step):
    """Normalise the channels of each site."""

    weight: nnx.Param
    bias: nnx.Param

    def __init__(self, step: spec.LayerNorm) -> None:
        super().__init__(step)
        self.eps = step.eps

    def __call__(self, sites: Any) -> Any:
        return sites.map(self.normalise)

    def normalise(self, x: Array) -> Array:
        centred = wide(x) - wide(x).mean(-1, keepdims=True)
        deviation = jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + self.eps)
        return (centred / deviation * self.weight[...] + self.bias[...]).astype(x.dtype)


class Dense(Step):
    """Linear layer on the channels of each site."""

    weight: nnx.Param
    bias: nnx.Param

    def __call__(self, sites: Any) -> Any:
        weight, bias = self.weight[...].astype(sites.dtype), self.bias[...].astype(sites.dtype)
        return sites.map(lambda x: x @ weight + bias)


class Gelu(Step):
    """Exact GELU."""

    def __call__(self, sites: Any) -> Any:
        return sites.map(lambda x: jax.nn.gelu(wide(x), approximate=False).astype(x.dtype))


class GRN(Step):
    """Global response normalisation."""

    gamma: nnx.Param
    beta: nnx.Param

    def __init__(self, step: spec.GRN) -> None:
        super().__init__(step)
        self.eps, self.scope = step.eps, step.scope

    def __call__(self, sites: Any) -> Any:
        norm = sites.spatial_norm(self.scope)  # N 1 .. 1 C
        response = norm / (norm.mean(-1, keepdims=True) + self.eps)
        scale = (1 + self.gamma[...] * response).astype(sites.dtype)
        shift = self.beta[...].astype(sites.dtype)
        return sites.map(lambda x: x * scale + shift)


class GlobalPool(Step):
    """Mean over the visible sites of an image."""

    def __call__(self, sites: Any) -> Any:
        return sites.pool()


def token(step: spec.FillRemoved) -> nnx.Param:
    """The learnt vector that fills removed sites: a bare parameter, since its path is its own name."""
    return nnx.Param(jnp.zeros(step.channels))


class Chain(nnx.Module):
    """Steps in the order of execution, registered under their dotted names.

    A parameter standing alone in a chain is the mask token: it fills the removed sites.
    """

    def __init__(self, steps: spec.Named, make: Callable[[spec.Step], nnx.Module | nnx.Param]) -> None:
        self.names = tuple(name for name, _ in steps)
        for name, step in steps:
            *parents, leaf = name.split(".")
            owner: nnx.Module = self
            for part in parents:
                if not hasattr(owner, part):
                    setattr(owner, part, nnx.Module())
                owner = getattr(owner, part)
            setattr(owner, leaf, make(step))

    def run(self, names: tuple[str, ...], sites: Any, call: Call) -> Any:
        """The sites after the named steps, each recorded under its name."""
        for name in names:
            step: Any = self
            for part in name.split("."):
                step = getattr(step, part)
            if isinstance(step, nnx.Param):
                sites = sites.fill(step[...].astype(sites.dtype))
            elif isinstance(step, Chain):
                sites = step(sites, call.inside(name))
            else:
                sites = step(sites)
            if call.record is not None:
                call.record(name, sites)
        return sites


class Residual(Chain):
    """The input plus its own chain's output, dropped an image at a time in training."""

    def __init__(self, step: spec.Residual, make: Callable[[spec.Step], nnx.Module | nnx.Param]) -> None:
        super().__init__(step.body, make)
        self.drop_path, self.index = step.drop_path, step.index

    def __call__(self, sites: Any, call: Call) -> Any:
        body = self.run(self.names, sites, call)
        if call.keep_paths is None or not self.drop_path:
            return sites.plus(body)
        keep = call.keep_paths[:, self.index].astype(sites.dtype)
        return sites.plus(body, keep / (1 - self.drop_path))
