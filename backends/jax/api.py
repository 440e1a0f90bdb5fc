"""Numpy in, numpy out: build a model, read and write its parameters, run it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import spec
from backends import api
from backends.initial import initial_arrays
from backends.jax.compilation import compiler_options
from backends.jax.layout import to_canonical, to_flax
from backends.jax.model import FCMAE, Backbone, Classifier
from backends.jax.space.engines import ENGINES
from backends.jax.space.protocol import Space
from backends.protocol import Arrays, BackendError, Dtype, Engine

Net = Classifier | FCMAE | Backbone

NETS: dict[type[spec.Model], Callable[..., Net]] = {
    spec.Classifier: Classifier,
    spec.FCMAE: FCMAE,
    spec.Backbone: Backbone,
}
"""The module of every kind of model."""


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Enable float64 where it is asked for, and full float32 products (TPUs and GPUs round them by default)."""
    exact = "highest" if dtype != "bfloat16" else None
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision(exact):
        yield


def build(model: spec.Model, *, seed: int = 0, dtype: Dtype = "float32", device: str | None = None) -> Net:
    """A flax.nnx.Module with fresh parameters drawn from `seed`; dtype is what it computes in."""
    with precision(dtype), jax.default_device(place(device)):
        m = empty(model, dtype)
        set_arrays(m, initial_arrays(model, seed))
    return m


def empty(model: spec.Model, dtype: str) -> Net:
    """The module of a model, its parameters not yet set."""
    explicit = "bfloat16" if dtype == "bfloat16" else None  # the parameters stay float32
    return NETS[type(model)](model, explicit)


def graph(model: spec.Model, dtype: str) -> nnx.GraphDef:
    """The definition of the module of a model, without its arrays."""
    return nnx.graphdef(nnx.eval_shape(partial(empty, model, dtype)))


def place(device: str | None) -> jax.Device:
    """The device of a name such as "cpu", "gpu" or "gpu:1", the best by default; BackendError if it is not there."""
    kind, _, index = (device or "").partition(":")
    try:
        return jax.local_devices(backend=kind or None)[int(index or 0)]
    except (RuntimeError, ValueError, IndexError):
        there = ", ".join(str(known) for known in jax.local_devices())
        raise BackendError(f"device: jax cannot use {device!r} here; it sees {there}") from None


def get_arrays(m: Net) -> Arrays:
    """The parameters in canonical names, layouts and order, as copies on the host."""
    return canonical(m.model, flat(m))


def set_arrays(m: Net, arrays: Mapping[str, np.ndarray]) -> None:
    """Overwrite the parameters; BackendError lists missing, unknown and misshapen names."""
    api.check_arrays(m.model, arrays)
    table = spec.parameters(m.model)
    with precision(m.dtype):
        new = {name: _like(old, to_flax(table[name], arrays[name])) for name, old in flat(m).items()}
        nnx.update(m, unflat(new))


def forward(
    m: Net,
    images: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    engine: Engine | None = None,
    kernels: str = "auto",
    intermediates: bool = False,
) -> Arrays:
    """Evaluate, numpy in and out; see `backends.protocol.Backend.forward`."""
    options = api.choose(m.model, ENGINES, engine, images, mask, mask)
    with precision(m.dtype):
        inputs = (nnx.graphdef(m), flat(m), *_inputs(m, images, mask))
        out = _compiled(_forward, m)(*inputs, intermediates=intermediates, kernels=kernels, **options)
        return {name: to_host(value) for name, value in out.items()}


def gradients(
    m: FCMAE, images: np.ndarray, mask: np.ndarray, *, engine: Engine | None = None, kernels: str = "auto"
) -> Arrays:
    """Gradients of the FCMAE loss, in canonical names and layouts."""
    if not (mask != 0).any():
        raise BackendError("mask: nothing is removed, so there is no loss; remove at least one patch")
    options = api.choose(m.model, ENGINES, engine, images, mask, mask)
    with precision(m.dtype):
        inputs = (nnx.graphdef(m), flat(m), *_inputs(m, images, mask))
        return canonical(m.model, _compiled(_gradients, m)(*inputs, kernels=kernels, **options))


def _compiled(function: Callable[..., Any], m: Net) -> Callable[..., Any]:
    """The function, compiled for the device that the parameters are on."""
    device = min(flat(m)[m.names[0] + ".weight"].devices(), key=lambda device: device.id)
    return partial(_jitted(function, device.platform), platform=device.platform)


@cache
def _jitted(function: Callable[..., Any], platform: str) -> Callable[..., Any]:
    static = ("graph", "engine", "visible", "kernels", "intermediates", "platform")
    options = compiler_options(platform, once=function is _gradients)
    return jax.jit(function, static_argnames=static, compiler_options=options)


def _forward(graph: Any, params: dict[str, jax.Array], images: jax.Array, mask: Any, **options: Any) -> Any:
    found: dict[str, jax.Array] = {}
    intermediates = options.pop("intermediates")

    def record(path: str, x: jax.Array, space: Space) -> None:
        found[path] = space.grid(x)

    return found | evaluating(graph, params)(images, mask, record=record if intermediates else None, **options)


def _gradients(graph: Any, params: dict[str, jax.Array], images: jax.Array, mask: Any, **options: Any) -> Any:
    return jax.grad(lambda p: evaluating(graph, p)(images, mask, loss_only=True, **options)["loss"])(params)


def bind(graph: Any, params: Mapping[str, jax.Array]) -> Any:
    """The module of a graph definition and named parameters."""
    return nnx.merge(graph, unflat(params))


def evaluating(graph: Any, params: Mapping[str, jax.Array]) -> Any:
    """`bind`, in evaluation mode, in which no path is dropped."""
    net = bind(graph, params)
    net.eval()
    return net


def flat(m: Net) -> dict[str, jax.Array]:
    """Canonical name -> parameter, in flax's layout."""
    return {".".join(map(str, path)): param[...] for path, param in nnx.to_flat_state(nnx.state(m))}


def unflat(params: Mapping[str, jax.Array]) -> nnx.State:
    leaves: dict[tuple[Any, ...], Any] = {tuple(name.split(".")): nnx.Param(p) for name, p in params.items()}
    return nnx.from_flat_state(leaves)


def _like(old: jax.Array, value: np.ndarray) -> jax.Array:
    """A new value in the dtype and on the devices of the old."""
    return jax.device_put(np.array(value, old.dtype), old.sharding)


def canonical(model: spec.Model, params: Mapping[str, jax.Array | np.ndarray]) -> Arrays:
    """Named values in flax's layout as canonical arrays on the host, in model order."""
    table = spec.parameters(model)
    return {name: to_canonical(table[name], np.array(params[name])) for name in table}


def to_host(value: jax.Array) -> np.ndarray:
    """A copy on the host; bfloat16 becomes float32."""
    return np.array(value.astype(jnp.float32) if value.dtype == jnp.bfloat16 else value)


def _inputs(m: Net, images: np.ndarray, mask: np.ndarray | None) -> tuple[jax.Array, jax.Array | None]:
    kind = jnp.float64 if m.dtype == "float64" else jnp.float32
    return jnp.asarray(images, kind), None if mask is None else jnp.asarray(mask)
