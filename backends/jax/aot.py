"""Compile ahead of time: what one update costs on devices that are not here.

libtpu compiles for a TPU on any Linux machine. Its FLOPs, bytes and memory are XLA's own; its
guess of the time is not shown, since it came out negative on convolutions.
"""

import os
import re
import time
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import spec
from backends.api import choose
from backends.jax import api
from backends.jax.flops import repeats
from backends.jax.space.engines import ENGINES
from backends.jax.update import DATA, Named, TrainState, TrainStep
from backends.protocol import BackendError, Batch, Optimizer, TrainerOptions

QUIET = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-1"}
"""Keeps libtpu from looking for the machine it is on."""

OUT_OF_MEMORY = r"total memory required for HLO temporaries \((\S+)\) exceeds available HBM \((\S+)\)"


class Cost(NamedTuple):
    """What one update, or whatever else was compiled, costs each device."""

    flops: float
    bytes: float  # read and written
    held: int  # parameters, moments, average and batch, in bytes
    temporary: int  # beside them
    seconds: float  # that compiling the step took
    loops: bool  # whether there are loops, whose bodies `bytes` counts once

    def __str__(self) -> str:
        least = "at least " if self.loops else ""
        memory = f"{self.held / 1e9:.2f} GB held + {self.temporary / 1e9:.2f} GB temporary"
        return (
            f"each device, an update: {self.flops / 1e12:.3f} TFLOP, {least}{self.bytes / 1e9:.2f} GB read and written;"
            f" fits: {memory}; compiled in {self.seconds:.0f} s"
        )


def devices(topology: str) -> list[Any]:
    """The devices of a name such as v5e:4x4, or cpu:8 for those that are here; BackendError for an unknown one."""
    kind, _, count = topology.partition(":")
    if kind == "cpu":
        there = jax.devices("cpu")
        if not count.isdecimal() or not 0 < int(count) <= len(there):
            raise BackendError(f"aot: {topology!r}: this process sees {len(there)} CPU devices")
        return there[: int(count)]
    if not (find_spec("libtpu") or "TPU_LIBRARY_PATH" in os.environ):
        raise BackendError("aot: needs libtpu, which compiles for TPUs and needs none; pip install 'twinnext[aot]'")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except Exception as error:  # whatever libtpu raises, it is about the name
        raise BackendError(f"aot: {topology!r}: {_line(error)}; name one such as v5e:4x4, v4:2x2x1, v6e:2x2") from None


def train_step(
    model: spec.Model,
    optimizer: Optimizer,
    devices: Sequence[Any],
    options: TrainerOptions,
) -> TrainStep:
    """The training step on these devices."""
    return TrainStep(model, optimizer, options, Mesh(np.array(devices), (DATA,)))


def cost(step: TrainStep, row: Batch, rows: int, many: int) -> Cost:
    """Compile an update of `many` micro-batches of `rows` rows a device; BackendError where it does not fit.

    row: one row of a batch, (1, ...) each.
    """
    mask = row.get("mask")
    options = {**choose(step.model, ENGINES, step.options.engine, row["images"], mask, mask)}
    with api.precision(step.options.dtype):
        batch = {name: _rows(step, rows * step.mesh.size, np.asarray(value)) for name, value in row.items()}
        return price(_programs(step, batch, many, options), step.platform)


def price(programs: Sequence[tuple[int, Any]], platform: str) -> Cost:
    """Compile traced programs, each of which runs a number of times; BackendError where one does not fit."""
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


def _programs(step: TrainStep, batch: Named, many: int, options: dict[str, Any]) -> list[tuple[int, Any]]:
    """What an update runs, traced, and how often."""
    state, lr = _state(step), jax.ShapeDtypeStruct((), step.kind)
    if many == 1:
        compiled = jax.jit(partial(step.update, **options), donate_argnums=0)
        return [(1, compiled.trace(state, batch, lr))]
    total = (lr, state.params)

    def add(state: TrainState, total: Any, batch: Named) -> Any:
        return step.accumulate(state.params, total, batch, 1 / many, **options)

    adding = jax.jit(add, donate_argnums=1, keep_unused=True)  # moments and average wait beside it
    applying = jax.jit(step.apply, donate_argnums=0)
    return [(many, adding.trace(state, total, batch)), (1, applying.trace(state, state.params, lr))]


def _compile(lowered: Any) -> tuple[Any, float]:
    """The program and the seconds that compiling took."""
    started = time.perf_counter()
    try:
        return lowered.compile(), time.perf_counter() - started
    except jax.errors.JaxRuntimeError as error:
        # libtpu says it in two ways; the second counts temporaries alone
        used = re.search(r"Used (\S+) of (\S+) (?:hbm|vmem)", str(error)) or re.search(OUT_OF_MEMORY, str(error))
        if not used:
            raise
        raise BackendError(f"aot: does not fit: it would use {used[1]} of {used[2]} on each device") from None


def _state(step: TrainStep) -> TrainState:
    """The shapes of a state, and where its arrays would lie."""
    where = step.shardings()
    named = {name: _shape(step.shapes[name], step.kind, place) for name, place in where.params.items()}
    adam = optax.ScaleByAdamState(_shape((), jnp.int32, where.adam.count), named, named)
    return TrainState(named, adam, named if where.ema else {})


def _rows(step: TrainStep, count: int, row: np.ndarray) -> Any:
    return _shape((count, *row.shape[1:]), row.dtype, NamedSharding(step.mesh, P(DATA)))


def _shape(shape: tuple[int, ...], dtype: Any, where: NamedSharding) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
