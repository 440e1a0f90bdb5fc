"""The steps of the spec as flax.nnx modules: parameters, plus one line on the sites they act on.

A module never knows how space is stored: the sites object does (see `sites/`).
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.lax import scan

import spec
from backends.jax.layout import permuted

SCANNED = 4
"""Blocks of one shape from which on they run as a scan: XLA compiles its body once."""

CONVOLVED = "what a depthwise convolution gives"
PRODUCTS = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    jax.checkpoint_policies.save_only_these_names(CONVOLVED),
)
"""What a scan keeps of its blocks for the backward pass; XLA would keep all between, some of it in float32."""


def at_least_float32(x: Array) -> Array:
    """x in float32 at least: what norms, sums and losses accumulate in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Call:
    """Arguments of one forward pass, handed down to every step."""

    def __init__(
        self,
        record: Callable[[str, Any], None] | None = None,
        keep_paths: Array | None = None,
        remat: bool = False,
        platform: str | None = None,
    ) -> None:
        self.record = record
        self.keep_paths = keep_paths  # N blocks, 1 = keep
        self.remat = remat  # compute the insides of a block again in its backward pass, instead of keeping them
        self.platform = platform or jax.default_backend()  # that the pass is compiled for

    def inside(self, name: str) -> "Call":
        """The same call one level down, where paths begin with `name`."""
        record = self.record
        if record is None:
            return self
        return Call(lambda path, sites: record(f"{name}.{path}", sites), self.keep_paths, self.remat, self.platform)


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
        weight, bias = self.weight[...].astype(sites.dtype), self.bias[...].astype(sites.dtype)
        return sites.depthwise_conv(weight, bias).map(lambda x: checkpoint_name(x, CONVOLVED))


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
        centred = at_least_float32(x) - at_least_float32(x).mean(-1, keepdims=True)
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
        return sites.map(lambda x: jax.nn.gelu(at_least_float32(x), approximate=False).astype(x.dtype))


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
        for _, group in groupby(names, self._shape):
            steps = {name: self._at(name) for name in group}
            if call.record is None and all(isinstance(step, Residual) for step in steps.values()):
                sites = _blocks(list(steps.values()), sites, call)
            else:
                for name, step in steps.items():
                    sites = _one(name, step, sites, call)
        return sites

    def _at(self, name: str) -> Any:
        step: Any = self
        for part in name.split("."):
            step = getattr(step, part)
        return step

    def _shape(self, name: str) -> spec.Named | str:
        """What neighbours share that may run as one group: blocks their body, other steps nothing."""
        return getattr(self._at(name), "body", name)


class Residual(Chain):
    """The input plus its own chain's output, dropped an image at a time in training."""

    def __init__(self, step: spec.Residual, make: Callable[[spec.Step], nnx.Module | nnx.Param]) -> None:
        super().__init__(step.body, make)
        self.body, self.drop_path, self.index = step.body, step.drop_path, step.index

    def __call__(self, sites: Any, call: Call, scale: Array | None = None) -> Any:
        return sites.plus(self.run(self.names, sites, call), scale)


def _one(name: str, step: Any, sites: Any, call: Call) -> Any:
    if isinstance(step, nnx.Param):
        sites = sites.fill(step[...].astype(sites.dtype))
    elif isinstance(step, Residual):
        sites = step(sites.prepare(dict(step.body)), call.inside(name), _scales([step], sites, call)[0])
    else:
        sites = step(sites)
    if call.record is not None:
        call.record(name, sites)
    return sites


def _blocks(blocks: Sequence[Residual], sites: Any, call: Call) -> Any:
    """The sites after blocks of one shape; many run as a scan over their parameters, stacked."""
    graph = nnx.graphdef(blocks[0])
    sites = sites.prepare(dict(blocks[0].body))
    layers = [(nnx.state(block), scale) for block, scale in zip(blocks, _scales(blocks, sites, call), strict=True)]
    scans = len(blocks) >= SCANNED
    loops = call.platform != "cpu" or not sites.convolves  # on CPU, XLA's convolution is five times slower in one

    def apply(x: Array, layer: tuple[Any, Array | None]) -> tuple[Array, None]:
        params, scale = layer
        return nnx.merge(graph, params)(sites.map(lambda _: x), Call(), scale).x, None

    if call.remat:
        apply = jax.checkpoint(apply, prevent_cse=not (scans and loops))  # a loop keeps XLA from undoing it
    elif scans and call.platform != "cpu":
        apply = jax.checkpoint(apply, policy=PRODUCTS, prevent_cse=False)
    if scans:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
        x, _ = scan(apply, sites.x, stacked, unroll=1 if loops else len(blocks))
    else:
        x = sites.x
        for layer in layers:
            x, _ = apply(x, layer)
    return sites.map(lambda _: x)


def _scales(blocks: Sequence[Residual], sites: Any, call: Call) -> list[Array | None]:
    """What each block's body is multiplied by (N,): keep / (1 - drop_path); None where no block drops."""
    keep_paths = call.keep_paths
    if keep_paths is None or not any(block.drop_path for block in blocks):
        return [None] * len(blocks)
    keep = [keep_paths[:, block.index] if block.drop_path else jnp.ones(len(keep_paths)) for block in blocks]
    return [k.astype(sites.dtype) / (1 - block.drop_path) for k, block in zip(keep, blocks, strict=True)]
