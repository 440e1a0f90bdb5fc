"""The training step in JAX: a pure function of (state, batch), compiled once per shape."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import spec
from backends.api import check_arrays, choose
from backends.initial import initial_arrays
from backends.jax import api
from backends.jax.cluster import Processes
from backends.jax.compilation import compiler_options
from backends.jax.kernels import choose_kernels
from backends.jax.layout import to_flax
from backends.jax.space.engines import ENGINES
from backends.jax.update import DATA, Named, TrainState, TrainStep
from backends.protocol import DEFAULTS, Arrays, Batch, Cluster, Optimizer, State, TrainerOptions

STATIC = ("engine", "visible")

COPIES, LARGE = {"gpu": 8}, 2**20
"""How many copies side by side, by platform, send an array of so many bytes or more: on an H200, 38 MB took 7.8 ms in
one copy and 2.3 ms in eight."""


class Trainer:
    """See `backends.protocol.Trainer`."""

    def __init__(
        self,
        model: spec.Model,
        optimizer: Optimizer,
        options: TrainerOptions = DEFAULTS,
        *,
        cluster: Cluster | None = None,
    ) -> None:
        self.model, self.optimizer, self.options = model, optimizer, options
        mesh = cluster.mesh if isinstance(cluster, Processes) else Mesh([api.place(options.device)], (DATA,))
        own = Mesh(mesh.local_devices, (DATA,))
        self.train_step = TrainStep(model, optimizer, options, mesh)
        self.eval_step = TrainStep(model, optimizer, replace(options, shard=False), own)  # on this process's rows
        step, where = self.train_step, self.train_step.shardings()
        pallas = choose_kernels(options.kernels, step.platform)
        plain = pallas is None or (pallas == "tpu" and options.engine == "masked")  # TPUs have kernels for patches only
        self.execution = "plain kernels" if plain else "Pallas kernels (--kernels plain)"
        jit = partial(jax.jit, compiler_options=compiler_options(step.platform))
        self._update = jit(step.update, static_argnames=STATIC, donate_argnums=0, out_shardings=(where, None, None))
        self._accumulate = jit(step.accumulate, static_argnames=STATIC, donate_argnums=1)
        self._apply = jit(step.apply, donate_argnums=0, out_shardings=(where, None))
        self._outputs = jit(self.eval_step.outputs, static_argnames=STATIC)
        self._loss = jax.jit(self.eval_step.loss)
        self._copy = jax.jit(lambda value: value, out_shardings=NamedSharding(mesh, P()))
        self.state: TrainState
        self._set(State.initial(initial_arrays(model, options.seed)))

    def step(self, batches: Sequence[Batch], lr: float) -> dict[str, Array]:
        """One update from the mean gradient of the micro-batches: {"loss", "grad_norm"}, 0-d."""
        spec.loss(self.model)  # SpecError for a model that has none
        with api.precision(self.options.dtype):
            if len(batches) == 1:
                arrays, options = self._inputs(batches[0])
                self.state, loss, norm = self._update(self.state, arrays, lr, **options)
                return {"loss": loss, "grad_norm": norm}
            total: Any = None
            for batch in batches:
                arrays, options = self._inputs(batch)
                total = self._accumulate(self.state.params, total, arrays, 1 / len(batches), **options)
            loss, gradient = total
            self.state, norm = self._apply(self.state, gradient, lr)
        return {"loss": loss, "grad_norm": norm}

    def evaluate(self, batch: Batch, *, ema: bool = False) -> Arrays:
        """The public `forward` on a training batch, with the parameters or their EMA."""
        with api.precision(self.options.dtype):
            arrays, options = self._rows(batch), self._options(batch)
            rows, devices = len(batch["images"]), self.eval_step.mesh.size
            padded = {name: _padded(value, -rows % devices) for name, value in arrays.items()}
            params = self._own(self.state.ema if ema else self.state.params)
            out = self._outputs(params, _spread(padded, self.eval_step.mesh), **options)
            out = {name: api.to_host(value)[:rows] for name, value in out.items()}
            if isinstance(self.model, spec.FCMAE):
                with jax.default_device(self.eval_step.mesh.local_devices[0]):
                    out["loss"] = api.to_host(self._loss(out["prediction"], arrays))
            return out

    def export(self) -> State | None:
        """A copy of the state on the host of process 0, None elsewhere."""
        with api.precision(self.options.dtype):
            named, adam, ema = self.state
            parts = [self._fetched(values) for values in (named, adam.mu, adam.nu, ema)]
            if jax.process_index():
                return None
            params, mu, nu, average = (api.canonical(self.model, part) if part else {} for part in parts)
            return State(params, mu, nu, average, int(_first(adam.count)))

    def restore(self, state: State) -> None:
        """Take over a state, of either framework; strict about names and shapes."""
        check_arrays(self.model, state.params)
        check_arrays(self.model, state.mu, "first moments")
        check_arrays(self.model, state.nu, "second moments")
        if self.optimizer.ema_decay is not None:
            check_arrays(self.model, state.ema, "EMA")
        self._set(state)

    def _set(self, state: State) -> None:
        """Place a state on the mesh by its shardings."""
        where, table = self.train_step.shardings(), spec.parameters(self.model)

        def put(arrays: Arrays, places: dict[str, NamedSharding]) -> Named:
            kept = {name: to_flax(table[name], arrays[name]) for name in places}
            return {name: _put(value, places[name], self.train_step.kind) for name, value in kept.items()}

        with api.precision(self.options.dtype):
            count = _put(np.array(state.t), where.adam.count, jnp.int32)
            moments = (put(state.mu, where.adam.mu), put(state.nu, where.adam.nu))
            adam = optax.ScaleByAdamState(count, *moments)
            self.state = TrainState(put(state.params, where.params), adam, put(state.ema, where.ema))

    def _inputs(self, batch: Batch) -> tuple[Named, dict[str, Any]]:
        """This process's rows among those of all devices, and what the compiled step depends on."""
        return _spread(self._rows(batch), self.train_step.mesh), self._options(batch)

    def _rows(self, batch: Batch) -> Arrays:
        return {name: np.asarray(value) for name, value in batch.items()}

    def _options(self, batch: Batch) -> dict[str, Any]:
        mask = batch.get("mask")
        return {**choose(self.model, ENGINES, self.options.engine, batch["images"], mask, mask)}

    def _own(self, params: Named) -> Named:
        """The parameters whole on the devices of this process."""
        where = NamedSharding(self.eval_step.mesh, P())
        return {name: _local(self._gathered(value), where) for name, value in params.items()}

    def _gathered(self, value: Array) -> Array:
        """The array whole on every device."""
        return value if value.is_fully_replicated else self._copy(value)

    def _fetched(self, values: Named) -> Arrays:
        """The arrays whole on the host of process 0, gathered one after the other; nothing elsewhere."""
        found = {}
        for name, value in values.items():
            whole = self._gathered(value)
            if jax.process_index() == 0:
                found[name] = np.array(_first(whole))
        return found


def _put(value: np.ndarray, where: NamedSharding, dtype: Any) -> Array:
    """The value on the devices, in its own memory, which a step may donate."""
    return jax.make_array_from_callback(value.shape, where, lambda index: np.array(value[index], dtype))


def _spread(arrays: Arrays, mesh: Mesh) -> Named:
    """This process's rows on its devices."""
    where, devices = NamedSharding(mesh, P(DATA)), mesh.local_devices
    copies = COPIES.get(devices[0].platform, 1)

    def put(value: np.ndarray) -> Array:
        shards = [
            _copied(rows, device, copies) for rows, device in zip(np.split(value, len(devices)), devices, strict=True)
        ]
        shape = (len(value) * mesh.size // len(devices), *value.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, where, shards)

    return {name: put(value) for name, value in arrays.items()}


def _copied(value: np.ndarray, device: jax.Device, copies: int) -> Array:
    """The value on a device, copied in pieces if it is large."""
    if copies == 1 or value.nbytes < LARGE:
        return jax.device_put(value, device)
    return jnp.concatenate(jax.device_put(np.array_split(value, copies), device))


def _padded(value: np.ndarray, rows: int) -> np.ndarray:
    """The value, its last row repeated `rows` times at the end."""
    return np.concatenate([value, np.repeat(value[-1:], rows, 0)]) if rows else value


def _first(value: Array) -> Array:
    return value.addressable_data(0)


def _local(value: Array, where: NamedSharding) -> Array:
    """A replicated array as one of this process alone; nothing is copied."""
    pieces = [shard.data for shard in value.addressable_shards]
    return jax.make_array_from_single_device_arrays(value.shape, where, pieces)
