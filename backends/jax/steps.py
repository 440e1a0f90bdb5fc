"""The steps of the spec as flax.nnx modules.

Pointwise steps (LayerNorm, Dense, Gelu) map x to x. Spatial steps take (x, space), and return both
where the space of x changes; a space computes what a step asks of it (see `space/`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.lax import scan

import spec
from backends.jax.activation import PRODUCT, SQUARES, gelu_grn
from backends.jax.kernels import PLATFORMS
from backends.jax.layout import permuted
from backends.jax.linear import product
from backends.jax.norm import at_least_float32, gelu
from backends.jax.space.dense import DenseSpace
from backends.jax.space.protocol import Space

SCANNED, SCANNED_ON_CPU = 2, 4
"""Run this many blocks of one shape, or more, as a scan: XLA compiles its body once. On CPU a scan costs memory; on
CUDA, where none is used, 9 ms of a step of 69 for the copies of what it keeps."""

CONVOLVED = "output of a depthwise convolution"
PRODUCTS = jax.checkpoint_policies.save_only_these_names(CONVOLVED, PRODUCT, SQUARES)
"""What a scan, and any block on CUDA, keeps for the backward pass; XLA would keep everything, some of it in float32."""


Record = Callable[[str, Array, Space], None]


@dataclass(frozen=True)
class Call:
    """Options of one forward pass, passed down to every block."""

    record: Record | None = None  # called with the path, x and space of every step
    keep_paths: Array | None = None  # N blocks, 1 = keep
    remat: bool = False  # recompute the activations inside a block in the backward pass
    platform: str | None = None  # what the pass is compiled for; None: the one that jax prefers

    def inside(self, name: str) -> "Call":
        """The same call one level down, where paths begin with `name`."""
        record = self.record
        if record is None:
            return self
        return replace(self, record=lambda path, x, space: record(f"{name}.{path}", x, space))


class Step(nnx.Module):
    """A module holding the arrays that the spec declares for its step."""

    def __init__(self, step: spec.Step) -> None:
        for name, array in step.arrays().items():
            setattr(self, name, _unset(permuted(array).shape))


def _unset(shape: tuple[int, ...]) -> nnx.Param:
    """A parameter of zeros, made on the host: `jnp.zeros` would compile a program per shape."""
    return nnx.Param(jax.device_put(np.zeros(shape, jnp.result_type(float))))


class LayerNorm(Step):
    """Normalise the channels of each site."""

    weight: nnx.Param
    bias: nnx.Param

    def __init__(self, step: spec.LayerNorm) -> None:
        super().__init__(step)
        self.eps = step.eps

    def __call__(self, x: Array) -> Array:
        centred = at_least_float32(x) - at_least_float32(x).mean(-1, keepdims=True)
        deviation = jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + self.eps)
        return (centred / deviation * self.weight[...] + self.bias[...]).astype(x.dtype)


class Dense(Step):
    """Linear layer on the channels of each site."""

    weight: nnx.Param
    bias: nnx.Param

    def __call__(self, x: Array) -> Array:
        y = product(x, self.weight[...].astype(x.dtype)) + self.bias[...].astype(x.dtype)
        return checkpoint_name(y, PRODUCT)


class Gelu(Step):
    """Exact GELU."""

    def __call__(self, x: Array) -> Array:
        return gelu(x)


class PatchConv(Step):
    """Non-overlapping convolution."""

    weight: nnx.Param
    bias: nnx.Param

    def __call__(self, x: Array, space: Space) -> tuple[Array, Space]:
        return space.patch_conv(x, self.weight[...].astype(x.dtype), self.bias[...].astype(x.dtype))


class DepthwiseConv(Step):
    """One kernel per channel; the only step that looks at neighbours."""

    weight: nnx.Param
    bias: nnx.Param | None

    def __init__(self, step: spec.DepthwiseConv) -> None:
        super().__init__(step)
        if not step.bias:
            self.bias = None

    def __call__(self, x: Array, space: Space) -> Array:
        bias = jnp.zeros(x.shape[-1], x.dtype) if self.bias is None else self.bias[...].astype(x.dtype)
        y = space.depthwise_conv(x, self.weight[...].astype(x.dtype), bias)
        return checkpoint_name(y, CONVOLVED)


class GRN(Step):
    """Global response normalisation."""

    gamma: nnx.Param
    beta: nnx.Param

    def __init__(self, step: spec.GRN) -> None:
        super().__init__(step)
        self.eps, self.scope = step.eps, step.scope

    def __call__(self, x: Array, space: Space) -> Array:
        return space.grn(x, self.gamma[...], self.beta[...], self.eps, self.scope)


class GlobalPool(Step):
    """Mean over the visible sites of each image."""

    def __call__(self, x: Array, space: Space) -> tuple[Array, Space]:
        return space.pool(x)


def vector(step: spec.FillRemoved | spec.LayerScale) -> nnx.Param:
    """The mask token, or the factors of a LayerScale: a bare parameter, since its path is its step's own."""
    return _unset((step.channels,))


class Chain(nnx.Module):
    """Steps in the order of execution, registered under their dotted names."""

    def __init__(self, steps: spec.Named) -> None:
        self.names = tuple(name for name, _ in steps)
        self.kinds = tuple((name, type(step)) for name, step in steps)
        for name, step in steps:
            *parents, leaf = name.split(".")
            owner: nnx.Module = self
            for part in parents:
                if not hasattr(owner, part):
                    setattr(owner, part, nnx.Module())
                owner = getattr(owner, part)
            setattr(owner, leaf, MODULES[type(step)](step))

    def run(self, names: tuple[str, ...], x: Array, space: Space, call: Call) -> tuple[Array, Space]:
        """x and its space after the named steps, each recorded under its name."""
        if call.record is None and _fuses(x, space) and (start := self._expansion(names)) is not None:
            x, space = self.run(names[:start], x, space, call)
            x = _fused(x, *(self._at(name) for name in names[start : start + len(EXPANSION)]))
            return self.run(names[start + len(EXPANSION) :], x, space, call)
        kinds = dict(self.kinds)
        for _, group in groupby(names, self._shape):
            steps = {name: self._at(name) for name in group}
            if call.record is None and all(isinstance(step, Residual) for step in steps.values()):
                x = _blocks(list(steps.values()), x, space, call)
                continue
            for name, step in steps.items():
                x, space = _apply(kinds[name], step, x, space, call.inside(name))
                if call.record is not None:
                    call.record(name, x, space)
        return x, space

    def _expansion(self, names: tuple[str, ...]) -> int | None:
        """Where the first steps of the kinds of EXPANSION begin."""
        kinds = [dict(self.kinds)[name] for name in names]
        return next((i for i in range(len(kinds)) if kinds[i : i + len(EXPANSION)] == EXPANSION), None)

    def _at(self, name: str) -> Any:
        step: Any = self
        for part in name.split("."):
            step = getattr(step, part)
        return step

    def _shape(self, name: str) -> spec.Named | str:
        """Key that groups consecutive equal blocks into one scan; other steps are a group of their own."""
        return getattr(self._at(name), "body", name)


class Residual(Chain):
    """The input plus the output of its own chain, which drop path may leave out per image."""

    def __init__(self, step: spec.Residual) -> None:
        super().__init__(step.body)
        self.body, self.drop_path, self.index = step.body, step.drop_path, step.index

    def __call__(self, x: Array, space: Space, call: Call | None = None, factor: Array | None = None) -> Array:
        """factor (N,) multiplies the body: keep / (1 - drop_path); None: 1."""
        body, _ = self.run(self.names, x, space, call or Call())
        return x + body if factor is None else x + body * space.broadcast(factor)


EXPANSION = [spec.Dense, spec.Gelu, spec.GRN, spec.Dense]
"""The steps of a block that CUDA's kernels compute as one."""


def _fuses(x: Array, space: Any) -> bool:
    """Whether CUDA's kernels serve x: in bfloat16, and with no removed site, whose values they would sum."""
    masked = isinstance(space, DenseSpace) and space.keep is not None
    return x.dtype == jnp.bfloat16 and space.kernels == "cuda" and not masked


def _fused(x: Array, expand: Dense, _: Gelu, grn: GRN, project: Dense) -> Array:
    """x (N, ..., C) after the steps of EXPANSION."""
    linear = [(dense.weight[...], dense.bias[...]) for dense in (expand, project)]
    sites = x.reshape(len(x), -1, x.shape[-1])
    return gelu_grn(sites, linear[0], (grn.gamma[...], grn.beta[...]), linear[1], grn.eps, grn.scope).reshape(x.shape)


def _apply(kind: type[spec.Step], step: Any, x: Array, space: Space, call: Call) -> tuple[Array, Space]:
    """x and its space after one step of a kind: a module, or a bare parameter."""
    if kind is spec.FillRemoved:
        return space.fill(x, step[...].astype(x.dtype))
    if kind is spec.LayerScale:
        return x * step[...].astype(x.dtype), space
    if isinstance(step, PatchConv | GlobalPool):
        return step(x, space)
    if isinstance(step, DepthwiseConv | GRN):
        return step(x, space), space
    return step(x, space, call, _factors([step], x, call)[0]) if isinstance(step, Residual) else step(x), space


def _blocks(blocks: Sequence[Residual], x: Array, space: Space, call: Call) -> Array:
    """x after blocks of one shape; many run as a scan over their parameters, stacked."""
    graph = nnx.graphdef(blocks[0])
    layers = [(nnx.state(block), factor) for block, factor in zip(blocks, _factors(blocks, x, call), strict=True)]
    platform = call.platform or jax.default_backend()
    on_cpu, on_cuda = platform == "cpu", PLATFORMS.get(platform) == "cuda"
    scans = len(blocks) >= (SCANNED_ON_CPU if on_cpu else SCANNED) and not on_cuda
    masked = isinstance(space, DenseSpace) and space.keep is not None
    loops = not (on_cpu and masked)  # on CPU, XLA's convolution, which that needs, is five times slower in a loop

    def apply(x: Array, layer: tuple[Any, Array | None]) -> tuple[Array, None]:
        params, factor = layer
        return nnx.merge(graph, params)(x, space, Call(), factor), None

    if call.remat:
        apply = jax.checkpoint(apply, prevent_cse=not (scans and loops))  # a loop keeps XLA from undoing it
    elif on_cuda or (scans and not on_cpu):
        apply = jax.checkpoint(apply, policy=PRODUCTS, prevent_cse=not scans)
    if scans:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
        return scan(apply, x, stacked, unroll=1 if loops else len(blocks))[0]
    apply = jax.jit(apply) if on_cuda else apply  # so that its kernels are traced and lowered once
    for layer in layers:
        x, _ = apply(x, layer)
    return x


def _factors(blocks: Sequence[Residual], x: Array, call: Call) -> list[Array | None]:
    """The factor of each block's body (N,): keep / (1 - drop_path); None where no block drops."""
    keep_paths = call.keep_paths
    if keep_paths is None or not any(block.drop_path for block in blocks):
        return [None] * len(blocks)
    keep = [keep_paths[:, block.index] if block.drop_path else jnp.ones(len(keep_paths)) for block in blocks]
    return [k.astype(x.dtype) / (1 - block.drop_path) for k, block in zip(keep, blocks, strict=True)]


MODULES: dict[type, Callable[[Any], nnx.Module | nnx.Param]] = {
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
