"""What a model costs on TPUs that are not here, masked against visible, by the figures of their compiler.

libtpu compiles for a TPU on any Linux machine. FLOPs, bytes and memory are XLA's own. Its estimate of
the time is not shown: it came out negative on convolutions.
"""

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

import spec
from backends.jax import api
from backends.jax.layout import shapes
from backends.jax.steps import Call
from backends.jax.update import DATA, TrainState, TrainStep
from backends.protocol import BackendError, Optimizer, TrainerOptions
from benchmarks.flops import repeats
from spec import console

ENGINES = ("masked", "visible")

QUIET = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-1"}
"""Keeps libtpu from looking for the machine it is on."""

OUT_OF_MEMORY = (
    r"Used (\S+) of (\S+) (?:hbm|vmem)",
    r"total memory required for HLO temporaries \((\S+)\) exceeds available HBM \((\S+)\)",  # temporaries alone
)
"""The two ways in which libtpu says that a program does not fit."""


class DoesNotFit(BackendError):
    """A program needs more memory than the device has."""


@dataclass(frozen=True)
class Work:
    """What is compiled: the gradient of a part of the model, or a whole training step."""

    model: spec.Model
    image_size: tuple[int, int]
    batch_size: int  # images per device and micro-batch
    what: str = "gradient"  # or "step"
    part: str = "encoder"  # or "fcmae"
    dtype: Any = "bfloat16"
    remat: bool = False  # recompute the activations of blocks in the backward pass
    update_freq: int = 1  # micro-batches per update
    shard: bool = False  # split parameters and moments over the devices
    ema: bool = False

    @property
    def engines(self) -> tuple[str, ...]:
        """A classifier masks nothing, so it has one form."""
        return ENGINES if isinstance(self.model, spec.FCMAE) else ENGINES[:1]

    @property
    def visible(self) -> int | None:
        """K, the visible patches per image."""
        return spec.visible_patches(self.model) if isinstance(self.model, spec.FCMAE) else None


class Cost(NamedTuple):
    """FLOPs, bytes of traffic and memory per device, and the seconds that compiling took."""

    flops: float
    bytes: float  # read and written; the body of a loop counts once
    held: int  # arguments: parameters, for a step moments and EMA too, and the batch; in bytes
    temporary: int  # needed beside them, in bytes
    seconds: float
    loops: bool  # whether there are loops


def devices(topology: str) -> list[Any]:
    """The devices of a topology such as v5e:4x4, or cpu:8 for CPU devices of this process; BackendError if unknown."""
    kind, _, count = topology.partition(":")
    if kind == "cpu":
        there = jax.devices("cpu")
        if not count.isdecimal() or not 0 < int(count) <= len(there):
            raise BackendError(f"--topology {topology}: this process sees {len(there)} CPU devices; give cpu:1")
        return there[: int(count)]
    if not _has_libtpu():
        raise BackendError(f"--topology {topology}: needs libtpu, the compiler of TPUs; pip install 'twinnext[aot]'")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except Exception as error:  # whatever libtpu raises, it is about the name
        reason = " ".join(str(error).split())[:200]
        raise BackendError(f"--topology {topology}: {reason}; give one such as v5e:4x4, v4:2x2x1, v6e:2x2") from None


def _has_libtpu() -> bool:
    return find_spec("libtpu") is not None or "TPU_LIBRARY_PATH" in os.environ


def measure(work: Work, topology: str, engine: str) -> Cost:
    """The cost of the gradient on one device of a topology, or of a training step on all; DoesNotFit if too large."""
    found = devices(topology)
    programs = _gradient if work.what == "gradient" else _step
    with api.precision(work.dtype):
        return price(programs(work, found, engine), found[0].platform)


def price(programs: Sequence[tuple[int, Any]], platform: str) -> Cost:
    """The cost of traced programs, each with the number of times that it runs."""
    flops = moved = seconds = repeated = 0.0
    held = temporary = 0
    for times, traced in programs:
        compiled, took = _compile(traced.lower())
        costs, sizes = compiled.cost_analysis(), compiled.memory_analysis()
        again = repeats(traced.jaxpr.jaxpr, platform)
        flops += times * (costs["flops"] + again)
        repeated += again
        moved += times * costs["bytes accessed"]
        seconds += took
        own = sizes.temp_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
        if sizes.argument_size_in_bytes + own > held + temporary:
            held, temporary = sizes.argument_size_in_bytes, own
    return Cost(flops, moved, held, temporary, seconds, repeated > 0)


def table(work: Work, name: str, topology: str) -> str:
    """One row per engine, then the costs of visible as a share of those of masked."""
    what = f"gradient of the {work.part} on one device" if work.what == "gradient" else "training step on each device"
    title = f"{name}, {what} of {topology}, {work.batch_size} images of {work.image_size[0]} px, {work.dtype}"
    rows, notes, costs = [["engine", "TFLOP", "GB moved", "GB temporary", "GB held", "s to compile"]], [], {}
    for engine in work.engines:
        try:
            costs[engine] = cost = measure(work, topology, engine)
        except DoesNotFit as error:
            notes.append(f"{engine}: {error}")
        else:
            memory = (f"{value / 1e9:.2f}" for value in (cost.bytes, cost.temporary, cost.held))
            rows.append([engine, f"{cost.flops / 1e12:.3f}", *memory, f"{cost.seconds:.0f}"])
    if len(costs) == len(ENGINES):
        rows.append(["share", *_shares(*(costs[engine] for engine in ENGINES)), "", ""])
    if any(cost.loops for cost in costs.values()):
        notes.append("Blocks run as loops. GB moved counts one pass through each loop, so it is a lower bound.")
    return "\n".join([title, "", console.table(rows, "<>"), *notes])


def _shares(masked: Cost, visible: Cost) -> list[str]:
    """FLOPs, bytes and temporary memory of visible over those of masked."""
    pairs = ((visible.flops, masked.flops), (visible.bytes, masked.bytes), (visible.temporary, masked.temporary))
    return [f"{ours / theirs:.2f}x" for ours, theirs in pairs]


def _gradient(work: Work, found: Sequence[Any], engine: str) -> list[tuple[int, Any]]:
    """The gradient of the FCMAE loss, or of the sum of the encoder's features, for the first device."""
    assert isinstance(work.model, spec.FCMAE)
    platform, shape = found[0].platform, partial(jax.ShapeDtypeStruct, sharding=SingleDeviceSharding(found[0]))
    graph = api.graph(work.model, work.dtype)
    params = {name: shape(size, jnp.float32) for name, size in shapes(work.model).items()}
    images = shape((work.batch_size, *work.image_size, work.model.encoder.in_chans), work.dtype)
    mask = shape((work.batch_size, *work.model.grid), jnp.uint8)
    options = {"engine": engine, "visible": work.visible}

    def loss(params: Any, images: Any, mask: Any) -> Any:
        net = api.bind(graph, params)
        if work.part == "fcmae":
            return net(images, mask, platform=platform, remat=work.remat, loss_only=True, **options)["loss"]
        x, space = net.encode(images, mask, Call(platform=platform, remat=work.remat), **options)
        return space.grid(x).astype(jnp.float32).sum()

    return [(1, jax.jit(jax.grad(loss)).trace(params, images, mask))]


def _step(work: Work, found: Sequence[Any], engine: str) -> list[tuple[int, Any]]:
    """An update on all devices: one program, or with micro-batches two."""
    optimizer = Optimizer(ema_decay=0.9999 if work.ema else None)
    options = TrainerOptions(dtype=work.dtype, shard=work.shard, remat=work.remat)
    step = TrainStep(work.model, optimizer, options, Mesh(np.array(found), (DATA,)))
    static: dict[str, Any] = {"engine": engine, "visible": work.visible}
    state, batch, lr = _state(step), dict(_batch(work, step)), jax.ShapeDtypeStruct((), step.kind)
    if work.update_freq == 1:
        return [(1, jax.jit(partial(step.update, **static), donate_argnums=0).trace(state, batch, lr))]

    def add(state: Any, total: Any, batch: Any) -> Any:
        return step.accumulate(state.params, total, batch, 1 / work.update_freq, **static)

    adding = jax.jit(add, donate_argnums=1, keep_unused=True)  # moments and EMA stay in memory while it runs
    applying = jax.jit(step.apply, donate_argnums=0)
    total = (lr, state.params)
    return [(work.update_freq, adding.trace(state, total, batch)), (1, applying.trace(state, state.params, lr))]


def _state(step: TrainStep) -> TrainState:
    """The shapes and shardings of a state."""
    where = step.shardings()
    named = {name: _shape(step.shapes[name], step.kind, place) for name, place in where.params.items()}
    adam = optax.ScaleByAdamState(_shape((), jnp.int32, where.adam.count), named, named)
    return TrainState(named, adam, named if where.ema else {})


def _batch(work: Work, step: TrainStep) -> Iterator[tuple[str, Any]]:
    """The shapes of a micro-batch of all devices: uint8 images, and masks or soft labels."""
    rows, where = work.batch_size * step.mesh.size, NamedSharding(step.mesh, P(DATA))
    yield "images", _shape((rows, *work.image_size, work.model.encoder.in_chans), "uint8", where)
    if isinstance(work.model, spec.FCMAE):
        yield "mask", _shape((rows, *work.model.grid), "uint8", where)
    elif isinstance(work.model, spec.Classifier):
        yield "targets", _shape((rows, work.model.num_classes), "float32", where)


def _shape(shape: tuple[int, ...], dtype: Any, where: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)


def _compile(lowered: Any) -> tuple[Any, float]:
    """The program and the seconds that compiling took."""
    started = time.perf_counter()
    try:
        return lowered.compile(), time.perf_counter() - started
    except jax.errors.JaxRuntimeError as error:
        used = next(filter(None, (re.search(pattern, str(error)) for pattern in OUT_OF_MEMORY)), None)
        if not used:
            raise
        raise DoesNotFit(f"does not fit: needs {used[1]} of the {used[2]} of each device") from None
