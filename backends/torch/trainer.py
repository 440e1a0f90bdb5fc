"""The training step in torch: a pure function of (state, batch)."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import spec
from backends.api import check_arrays, choose, in_model_order, learning_rate_scales
from backends.protocol import DEFAULTS, Arrays, Batch, Cluster, Optimizer, State, TrainerOptions
from backends.torch import api, defaults, parallel
from backends.torch.cluster import distributed_errors
from backends.torch.compilation import compile_kernels, compile_steps
from backends.torch.graphs import GraphedGradient
from backends.torch.model import FCMAE
from backends.torch.space.engines import ENGINES

READ = ("images", "mask", "keep_paths", "targets", "weights")


class Trainer:
    """See `backends.protocol.Trainer`."""

    @distributed_errors()
    def __init__(
        self,
        model: spec.Model,
        optimizer: Optimizer,
        options: TrainerOptions = DEFAULTS,
        *,
        cluster: Cluster | None = None,
    ) -> None:
        self.model, self.optimizer, self.options = model, optimizer, options
        self.rank, self.processes = (cluster.rank, cluster.processes) if cluster else (0, 1)
        device = api.place(options.device or api.best())
        self.execution = defaults.resolve(options, device.type, self.processes)
        if self.execution.triton:
            compile_kernels(model.encoder, getattr(torch, options.dtype))  # while the parameters are drawn
        self.net = api.build(model, seed=options.seed, dtype=options.dtype, device=str(device))
        parameter = next(self.net.parameters())
        self.mean, self.std = parameter.new_tensor(options.mean), parameter.new_tensor(options.std)
        if self.execution.compile:
            compile_steps(self.net)
        self.trained = parallel.spread(self.net, self.processes, options.shard)
        self.named = dict(self.net.named_parameters())
        self.scales = learning_rate_scales(model, optimizer)
        self.adamw = torch.optim.AdamW(self._groups(), lr=0.0, betas=optimizer.betas, eps=optimizer.eps, fused=True)
        averaged = optimizer.ema_decay is not None
        self.ema = {name: p.detach().clone() for name, p in self.named.items()} if averaged else {}
        self.graphed = GraphedGradient(list(self.net.parameters())) if self.execution.graphs else None
        self.t = 0

    @distributed_errors()
    def step(self, batches: Sequence[Batch], lr: float) -> dict[str, Tensor]:
        """One update from the mean gradient of the micro-batches: {"loss", "grad_norm"}, 0-d."""
        spec.loss(self.model)  # SpecError for a model that has none
        total = torch.zeros_like(self.mean[0])
        with api.precision(self.net.dtype):
            for number, batch in enumerate(batches, 1):
                with parallel.accumulating(self.trained, last=number == len(batches)):
                    total += self._gradient(batch, len(batches))
        norm = self._clip()
        for group in self.adamw.param_groups:
            group["lr"] = lr * group["scale"]
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=self.trained is self.net)  # buckets stay
        self.t += 1
        self._update_ema()
        return {"loss": parallel.mean(total, self.processes), "grad_norm": norm}

    @distributed_errors()
    @torch.no_grad()
    def evaluate(self, batch: Batch, *, ema: bool = False) -> Arrays:
        """The public `forward` on a training batch, with the parameters or their EMA."""
        eager = torch.compiler.set_stance("force_eager")  # other shapes, a few times
        with eager, api.evaluating(self.net), parallel.exchanged(self.named, self.ema if ema else {}):
            out = self._forward(self.net, self._tensors(batch), self._options(batch))
        return {name: api.to_host(value) for name, value in out.items()}

    @distributed_errors()
    def export(self) -> State | None:
        """A copy of the state on the host of process 0, None elsewhere."""
        moments = self.adamw.state
        zeros = {name: torch.zeros_like(p) for name, p in self.named.items()}

        def moment(key: str) -> Arrays:
            return self._arrays({name: moments[p].get(key, zeros[name]) for name, p in self.named.items()})

        params = self._arrays(self.named)
        state = State(params, moment("exp_avg"), moment("exp_avg_sq"), self._arrays(self.ema), self.t)
        return None if self.rank else state

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Take over a state, of either framework; strict about names and shapes."""
        check_arrays(self.model, state.params)
        check_arrays(self.model, state.mu, "first moments")
        check_arrays(self.model, state.nu, "second moments")
        for name, p in self.named.items():
            parallel.fill(p, state.params[name])
            mu, nu = (parallel.fill(torch.empty_like(p), arrays[name]) for arrays in (state.mu, state.nu))
            step = torch.tensor(float(state.t), dtype=torch.float32, device=p.device)
            self.adamw.state[p] = {"step": step, "exp_avg": mu, "exp_avg_sq": nu}
        if self.ema:
            check_arrays(self.model, state.ema, "EMA")
            for name, average in self.ema.items():
                parallel.fill(average, state.ema[name])
        self.t = state.t

    def _gradient(self, batch: Batch, batches: int) -> Tensor:
        """The loss of one of some micro-batches, its share of it; adds to the gradients."""
        options = self._options(batch)

        def gradient(tensors: dict[str, Tensor]) -> Tensor:
            loss = self._loss(tensors, options) / batches
            loss.backward()
            return loss.detach()

        tensors = self._tensors(batch)
        if self.graphed is None or options["visible"] is None:  # masked with unequal counts, which the host reads
            return gradient(tensors)
        return self.graphed(gradient, tensors, key=(batches, *options.values()))

    def _loss(self, tensors: dict[str, Tensor], options: dict[str, object]) -> Tensor:
        options = options | {"remat": self.options.remat}
        if isinstance(self.net, FCMAE):
            return self._forward(self.trained, tensors, options | {"loss_only": True})["loss"]
        out = self._forward(self.trained, tensors, options)
        return F.cross_entropy(out["logits"].to(self.mean.dtype), tensors["targets"].to(self.mean.dtype))

    def _forward(
        self, net: Callable[..., dict[str, Tensor]], tensors: dict[str, Tensor], options: dict[str, object]
    ) -> dict[str, Tensor]:
        pixels = tensors["images"].to(self.mean.dtype)
        if tensors["images"].dtype == torch.uint8:
            pixels = (pixels / 255 - self.mean) / self.std
        options |= {"weights": tensors["weights"]} if "weights" in tensors else {}
        return net(pixels, tensors.get("mask"), keep_paths=tensors.get("keep_paths"), **options)

    def _options(self, batch: Batch) -> dict[str, object]:
        mask, engine = batch.get("mask"), self.options.engine
        if engine is None and mask is None and self.execution.triton:
            engine = "visible"  # with every patch visible: 1.13 times as fast as cuDNN's convolutions (H200, base)
        chosen = choose(self.model, ENGINES, engine, batch["images"], mask, mask)
        return {**chosen, "kernels": self.options.kernels}

    def _tensors(self, batch: Batch) -> dict[str, Tensor]:
        """What of a batch the model and its loss read, on the device."""
        return {name: self._tensor(batch[name]) for name in READ if name in batch}  # type: ignore[literal-required]

    def _tensor(self, array: np.ndarray) -> Tensor:
        tensor = api.from_host(array)
        if self.mean.is_cuda:
            tensor = tensor.pin_memory()  # or the host would wait for the copy
        return tensor.to(self.mean.device, non_blocking=True)

    def _groups(self) -> list[dict[str, object]]:
        """AdamW's groups: parameters with one learning-rate scale and one weight decay each."""
        table = spec.parameters(self.model)
        groups: dict[tuple[float, bool], list[Tensor]] = {}
        for name, p in self.named.items():
            groups.setdefault((self.scales[name], table[name].decays), []).append(p)
        decay = self.optimizer.weight_decay
        return [
            {"params": params, "scale": scale, "weight_decay": decay if decays else 0.0}
            for (scale, decays), params in groups.items()
        ]

    def _clip(self) -> Tensor:
        """The norm of the whole gradient, which is scaled down to `clip_grad` where that is set."""
        clip = self.optimizer.clip_grad
        if clip is None:
            gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
            return parallel.whole(torch.nn.utils.get_total_norm(gradients))
        return parallel.whole(torch.nn.utils.clip_grad_norm_(self.net.parameters(), clip))

    @torch.no_grad()
    def _update_ema(self) -> None:
        decay = self.optimizer.ema_decay
        if decay is not None:
            for name, average in self.ema.items():
                parallel.part(average).lerp_(parallel.part(self.named[name]), 1 - decay)

    def _arrays(self, tensors: Mapping[str, Tensor]) -> Arrays:
        """Whole arrays on the host of process 0; on other ranks {} (collective)."""
        gathered = ((name, parallel.whole(tensor)) for name, tensor in tensors.items())
        arrays = {name: api.to_host(tensor) for name, tensor in gathered if not self.rank}
        return in_model_order(self.model, arrays) if arrays else {}
