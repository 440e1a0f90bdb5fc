"""The training step in JAX: a pure function of (state, batch), compiled once per shape."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

import spec
from backends import scales
from backends.door import check_arrays, choose_engine, visible_patches
from backends.jax import door
from backends.jax.sites import ENGINES
from backends.protocol import Arrays, Batch, Cluster, Dtype, Engine, Optimizer, State

Named = dict[str, Array]


class Moments(NamedTuple):
    """What the optimizer carries from update to update."""

    params: Named
    adam: optax.ScaleByAdamState
    ema: Named  # empty where no average is kept


class Trainer:
    """See `backends.protocol.Trainer`."""

    def __init__(
        self,
        model: spec.Model,
        optimizer: Optimizer,
        *,
        seed: int = 0,
        dtype: Dtype = "float32",
        engine: Engine | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        device: str | None = None,
        cluster: Cluster | None = None,
        shard: bool = False,
        remat: bool = False,
        compile: bool = False,  # always
    ) -> None:
        self.model, self.optimizer, self.engine, self.dtype = model, optimizer, engine, dtype
        net = door.build(model, seed=seed, dtype=dtype, device=device)
        self.graph = nnx.graphdef(net)
        self.mean, self.std = tuple(mean), tuple(std)
        with door.precision(dtype):
            params = door.flat(net)
            adam = optax.scale_by_adam(*optimizer.betas, optimizer.eps)
            ema = {name: jnp.copy(p) for name, p in params.items()} if optimizer.ema_decay is not None else {}
            self.state = Moments(params, adam.init(params), ema)
        self._add_gradient = jax.jit(self._accumulate, static_argnames=("engine", "visible"), donate_argnums=(1, 2))
        self._update = jax.jit(partial(_update, adam, *self._rules(), optimizer), donate_argnums=0)
        self._evaluate = jax.jit(self._run, static_argnames=("engine", "visible"))

    def step(self, batches: Sequence[Batch], lr: float) -> dict[str, Array]:
        """One update from the mean gradient of the micro-batches: {"loss", "grad_norm"}, 0-d."""
        with door.precision(self.dtype):
            params = self.state.params
            gradient = jax.tree.map(jnp.zeros_like, params)
            total = jnp.zeros((), next(iter(params.values())).dtype)
            for batch in batches:
                arrays, options = self._inputs(batch)
                total, gradient = self._add_gradient(params, total, gradient, 1 / len(batches), arrays, **options)
            self.state, norm = self._update(self.state, gradient, lr)
        return {"loss": total, "grad_norm": norm}

    def evaluate(self, batch: Batch, *, ema: bool = False) -> Arrays:
        """The door's `forward` on a training batch, with the parameters or their average."""
        with door.precision(self.dtype):
            arrays, options = self._inputs(batch)
            out = self._evaluate(self.state.ema if ema else self.state.params, arrays, **options)
            return {name: door.to_host(value) for name, value in out.items()}

    def export(self) -> State | None:
        """A copy of the state on the host of process 0, None elsewhere."""
        with door.precision(self.dtype):
            named, adam, ema = self.state
            params, mu, nu = (door.canonical(self.model, values) for values in (named, adam.mu, adam.nu))
            average = door.canonical(self.model, ema) if ema else {}
            return State(params, mu, nu, average, int(adam.count))

    def restore(self, state: State) -> None:
        """Take over a state, of either framework; strict about names and shapes."""
        averaged = bool(self.state.ema)
        check_arrays(self.model, state.params)
        check_arrays(self.model, state.mu, "first moments")
        check_arrays(self.model, state.nu, "second moments")
        if averaged:
            check_arrays(self.model, state.ema, "average")
        with door.precision(self.dtype):
            named = (state.params, state.mu, state.nu, state.ema if averaged else {})
            old = self.state.params
            params, mu, nu, ema = (door.like(old, door.flax_arrays(self.model, a, self.dtype)) for a in named)
            self.state = Moments(params, optax.ScaleByAdamState(jnp.asarray(state.t, jnp.int32), mu, nu), ema)

    def _accumulate(
        self, params: Named, total: Array, gradient: Named, weight: float, batch: dict[str, Array], **options: Any
    ) -> tuple[Array, Named]:
        """total and gradient, with `weight` times those of one batch added."""
        loss, grads = jax.value_and_grad(lambda p: self._loss(p, batch, **options))(params)
        return total + weight * loss, jax.tree.map(lambda a, g: a + weight * g, gradient, grads)

    def _loss(self, params: Named, batch: dict[str, Array], **options: Any) -> Array:
        out = self._run(params, batch, **options)
        if isinstance(self.model, spec.FCMAE):
            return out["loss"]
        targets = batch["targets"].astype(next(iter(params.values())).dtype)
        return optax.softmax_cross_entropy(out["logits"].astype(targets.dtype), targets).mean()

    def _run(self, params: Named, batch: dict[str, Array], **options: Any) -> dict[str, Array]:
        kind = next(iter(params.values())).dtype
        images = batch["images"]
        pixels = images.astype(kind)
        if images.dtype == jnp.uint8:
            pixels = (pixels / 255 - jnp.asarray(self.mean, kind)) / jnp.asarray(self.std, kind)
        net = door.bind(self.graph, params)
        return net(pixels, batch.get("mask"), keep_paths=batch.get("keep_paths"), **options)

    def _inputs(self, batch: Batch) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        images, mask = batch["images"], batch.get("mask")
        visible = visible_patches(mask, images, self.model.encoder.patch_size)
        options = {"engine": choose_engine(self.engine, ENGINES, mask, visible), "visible": visible}
        return {name: np.asarray(value) for name, value in batch.items()}, options

    def _rules(self) -> tuple[dict[str, float], dict[str, float]]:
        """Per parameter: the scale of its learning rate, and its weight decay."""
        table = spec.parameters(self.model)
        decay = {name: self.optimizer.weight_decay * param.decays for name, param in table.items()}
        return scales.learning_rate_scales(self.model, self.optimizer), decay


def _update(
    adam: optax.GradientTransformation,
    scale: dict[str, float],
    decay: dict[str, float],
    optimizer: Optimizer,
    state: Moments,
    gradient: Named,
    lr: Array,
) -> tuple[Moments, Array]:
    """AdamW with decoupled decay, each parameter at its own learning rate, then the average."""
    norm = optax.tree.norm(gradient)
    if optimizer.clip_grad is not None:
        factor = jnp.minimum(optimizer.clip_grad / (norm + 1e-6), 1)  # torch's epsilon
        gradient = jax.tree.map(lambda g: g * factor, gradient)
    direction, moments = adam.update(gradient, state.adam, state.params)
    params = {name: p - lr * scale[name] * (direction[name] + decay[name] * p) for name, p in state.params.items()}
    rate = 1 - (optimizer.ema_decay or 0)
    ema = {name: e + rate * (params[name] - e) for name, e in state.ema.items()}
    return Moments(params, moments, ema), norm
