"""The training step without its arrays: what can be traced, compiled and costed before any array exists.

A mesh has one axis, "data". Losses and gradients are computed by each device on its own rows
(`shard_map`) and then averaged: a visible batch is indexed across images, and XLA, left to
split that by itself, would gather activations from everywhere. A batch is the same number of
rows on every device, so the mean of the devices' means is the mean.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import spec
from backends.api import learning_rate_scales
from backends.jax import api
from backends.jax.layout import shapes
from backends.jax.model import masked_loss
from backends.protocol import Optimizer, TrainerOptions

DATA = "data"
SMALL = 2**14
"""Parameters with fewer values are not split."""

Named = dict[str, Array]


class TrainState(NamedTuple):
    """Parameters, Adam's moments and step count, and the EMA of the parameters."""

    params: Named
    adam: optax.ScaleByAdamState
    ema: Named  # empty without an EMA


class TrainStep:
    """One update of a model on a mesh of devices: pure functions of (state, batch), not yet compiled."""

    def __init__(
        self,
        model: spec.Model,
        optimizer: Optimizer,
        options: TrainerOptions,
        mesh: Mesh,
    ) -> None:
        self.model, self.optimizer, self.options, self.mesh = model, optimizer, options, mesh
        self.platform = mesh.devices.flat[0].platform
        self.kind = jnp.float64 if options.dtype == "float64" else jnp.float32
        self.graph = api.graph(model, options.dtype)
        self.shapes = shapes(model)
        self.axes = {
            name: _split_axis(shape, mesh.size) if options.shard else None for name, shape in self.shapes.items()
        }
        self.specs = {name: _spec(axis) for name, axis in self.axes.items()}
        self.adam = optax.scale_by_adam(*optimizer.betas, optimizer.eps)

    def shardings(self) -> Any:
        """Where each array of `TrainState` lies: whole on every device, or split along one axis."""
        named: Any = {name: NamedSharding(self.mesh, split) for name, split in self.specs.items()}
        count = NamedSharding(self.mesh, P())
        average: Any = named if self.optimizer.ema_decay is not None else {}
        return TrainState(named, optax.ScaleByAdamState(count, named, named), average)

    def update(self, state: TrainState, batch: Named, lr: Array, **options: Any) -> tuple[TrainState, Array, Array]:
        """The state after one update from one batch, the loss and the norm of the gradient."""
        loss, gradient = self._gradient(state.params, batch, **options)
        state, norm = self.apply(state, gradient, lr)
        return state, loss, norm

    def accumulate(
        self, params: Named, total: tuple[Array, Named] | None, batch: Named, weight: float, **options: Any
    ) -> tuple[Array, Named]:
        """The loss and gradient of one micro-batch times `weight`, added to those of the ones before."""
        found = jax.tree.map(lambda value: weight * value, self._gradient(params, batch, **options))
        return found if total is None else jax.tree.map(jnp.add, total, found)

    def apply(self, state: TrainState, gradient: Named, lr: Array) -> tuple[TrainState, Array]:
        """The state after an update by AdamW (see `spec.Optimizer`), and the norm of the gradient."""
        norm = optax.tree.norm(gradient)
        if self.optimizer.clip_grad is not None:
            factor = jnp.minimum(self.optimizer.clip_grad / (norm + spec.CLIP_EPS), 1)
            gradient = jax.tree.map(lambda g: g * factor, gradient)
        direction, moments = self.adam.update(gradient, state.adam, state.params)
        scale, decay = self._rules()
        params = {name: p - lr * scale[name] * (direction[name] + decay[name] * p) for name, p in state.params.items()}
        rate = 1 - (self.optimizer.ema_decay or 0)
        ema = {name: e + rate * (params[name] - e) for name, e in state.ema.items()}
        return TrainState(params, moments, ema), norm

    def outputs(self, params: Named, batch: Named, **options: Any) -> Named:
        """The model's outputs for each row of a batch; `params` whole on every device of the mesh."""

        def local(params: Named, batch: Named) -> Named:
            out = self._run(api.evaluating(self.graph, params), batch, **options)
            return {name: value for name, value in out.items() if name != "loss"}

        return self._mapped(local, (P(), P(DATA)), P(DATA))(params, batch)

    def loss(self, prediction: Array, batch: Named) -> Array:
        """The FCMAE loss of given predictions."""
        assert isinstance(self.model, spec.FCMAE)
        return masked_loss(prediction, self._pixels(batch["images"]), batch.get("mask"), self.model)

    def _gradient(self, params: Named, batch: Named, **options: Any) -> tuple[Array, Named]:
        """The mean loss over all devices' rows and its gradient, split as the parameters are."""

        def local(params: Named, batch: Named) -> tuple[Array, Named]:
            loss, grads = jax.value_and_grad(lambda p: self._loss(self._whole(p), batch, **options))(params)
            return lax.pmean(loss, DATA), {name: self._averaged(name, g) for name, g in grads.items()}

        return self._mapped(local, (self.specs, P(DATA)), (P(), self.specs))(params, batch)

    def _mapped(self, function: Any, inputs: Any, outputs: Any) -> Any:
        return jax.shard_map(function, mesh=self.mesh, in_specs=inputs, out_specs=outputs, check_vma=False)

    def _whole(self, params: Named) -> Named:
        """Each parameter gathered from its pieces; the gradient of this sums and splits again."""
        return {
            name: p if (axis := self.axes[name]) is None else lax.all_gather(p, DATA, axis=axis, tiled=True)
            for name, p in params.items()
        }

    def _averaged(self, name: str, gradient: Array) -> Array:
        return lax.pmean(gradient, DATA) if self.axes[name] is None else gradient / self.mesh.size

    def _loss(self, params: Named, batch: Named, **options: Any) -> Array:
        net = api.bind(self.graph, params)
        if isinstance(self.model, spec.FCMAE):
            return self._run(net, batch, loss_only=True, **options)["loss"]
        out = self._run(net, batch, **options)
        targets = batch["targets"].astype(self.kind)
        return optax.softmax_cross_entropy(out["logits"].astype(targets.dtype), targets).mean()

    def _run(self, net: Any, batch: Named, **options: Any) -> Named:
        options |= {"kernels": self.options.kernels, "remat": self.options.remat, "platform": self.platform}
        options |= {"weights": batch["weights"]} if "weights" in batch else {}
        return net(self._pixels(batch["images"]), batch.get("mask"), keep_paths=batch.get("keep_paths"), **options)

    def _pixels(self, images: Array) -> Array:
        pixels = images.astype(self.kind)
        if images.dtype != jnp.uint8:
            return pixels
        return (pixels / 255 - jnp.asarray(self.options.mean, self.kind)) / jnp.asarray(self.options.std, self.kind)

    def _rules(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Per parameter: the scale of its learning rate, and its weight decay."""
        table = spec.parameters(self.model)
        decay = {name: self.optimizer.weight_decay * param.decays for name, param in table.items()}
        return learning_rate_scales(self.model, self.optimizer), decay


def _split_axis(shape: tuple[int, ...], devices: int) -> int | None:
    """The longest axis that the devices divide; None if there is none, or the array is small."""
    if math.prod(shape) < SMALL:
        return None
    fitting = [axis for axis, size in enumerate(shape) if size % devices == 0]
    return max(fitting, key=lambda axis: shape[axis], default=None)


def _spec(axis: int | None) -> P:
    return P() if axis is None else P(*[None] * axis, DATA)
