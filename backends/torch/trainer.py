"""The training step in torch: a pure function of (state, batch)."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import spec
from backends import scales
from backends.door import check_arrays, choose_engine, in_model_order, visible_patches
from backends.protocol import Arrays, BackendError, Batch, Cluster, Dtype, Engine, Optimizer, State
from backends.torch import door
from backends.torch.fcmae import FCMAE
from backends.torch.sites import ENGINES


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
        compile: bool = False,
    ) -> None:
        self.model, self.optimizer, self.engine, self.remat = model, optimizer, engine, remat
        best = "cuda" if torch.cuda.is_available() else "cpu"
        self.net = door.build(model, seed=seed, dtype=dtype, device=device or best)
        if compile and engine == "minkowski":
            raise BackendError("engine: 'minkowski' goes through no compiler; leave it or --compile away")
        self.call = torch.compile(self.net, fullgraph=True, dynamic=False) if compile else self.net
        self.named = dict(self.net.named_parameters())
        parameter = next(self.net.parameters())
        self.mean, self.std = parameter.new_tensor(mean), parameter.new_tensor(std)
        self.scales = scales.learning_rate_scales(model, optimizer)
        self.adamw = torch.optim.AdamW(self._groups(), lr=0.0, betas=optimizer.betas, eps=optimizer.eps, fused=True)
        averaged = optimizer.ema_decay is not None
        self.ema = {name: p.detach().clone() for name, p in self.named.items()} if averaged else {}
        self.t = 0

    def step(self, batches: Sequence[Batch], lr: float) -> dict[str, Tensor]:
        """One update from the mean gradient of the micro-batches: {"loss", "grad_norm"}, 0-d."""
        total = torch.zeros_like(self.mean[0])
        with door.precision(self.net.dtype):
            for batch in batches:
                loss = self._loss(batch) / len(batches)
                loss.backward()
                total += loss.detach()
        norm = self._clip()
        for group in self.adamw.param_groups:
            group["lr"] = lr * group["scale"]
        self.adamw.step()
        self.adamw.zero_grad()
        self.t += 1
        self._average()
        return {"loss": total, "grad_norm": norm}

    @torch.no_grad()
    def evaluate(self, batch: Batch, *, ema: bool = False) -> Arrays:
        """The door's `forward` on a training batch, with the parameters or their average."""
        parameters = self.ema if ema else self.named
        with door.precision(self.net.dtype):
            out = torch.func.functional_call(self.net, dict(parameters), *self._call(batch))
        return {name: door.to_host(value) for name, value in out.items()}

    def export(self) -> State | None:
        """A copy of the state on the host of process 0, None elsewhere."""
        moments = self.adamw.state
        zeros = {name: torch.zeros_like(p) for name, p in self.named.items()}

        def moment(key: str) -> Arrays:
            return self._arrays({name: moments[p].get(key, zeros[name]) for name, p in self.named.items()})

        params = self._arrays(self.named)
        return State(params, moment("exp_avg"), moment("exp_avg_sq"), self._arrays(self.ema), self.t)

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Take over a state, of either framework; strict about names and shapes."""
        check_arrays(self.model, state.mu, "first moments")
        check_arrays(self.model, state.nu, "second moments")
        door.set_arrays(self.net, state.params)
        for name, p in self.named.items():
            mu, nu = (door.from_host(a[name]).to(p.device, p.dtype, copy=True) for a in (state.mu, state.nu))
            step = torch.tensor(float(state.t), dtype=torch.float32)
            self.adamw.state[p] = {"step": step, "exp_avg": mu, "exp_avg_sq": nu}
        if self.ema:
            check_arrays(self.model, state.ema, "average")
            for name, average in self.ema.items():
                average.copy_(door.from_host(state.ema[name]))
        self.t = state.t

    def _loss(self, batch: Batch) -> Tensor:
        args, options = self._call(batch)
        out = self.call(*args, **options, remat=self.remat)
        if isinstance(self.net, FCMAE):
            return out["loss"]
        return F.cross_entropy(out["logits"].to(self.mean.dtype), self._tensor(batch["targets"]).to(self.mean.dtype))

    def _call(self, batch: Batch) -> tuple[tuple[Tensor, Tensor | None], dict[str, object]]:
        images, mask = batch["images"], batch.get("mask")
        visible = visible_patches(mask, images, self.model.encoder.patch_size)
        options: dict[str, object] = {
            "engine": choose_engine(self.engine, ENGINES, mask, visible),
            "visible": visible,
        }
        if "keep_paths" in batch:
            options["keep_paths"] = self._tensor(batch["keep_paths"])
        pixels = self._tensor(images).to(self.mean.dtype)
        if images.dtype == np.uint8:
            pixels = (pixels / 255 - self.mean) / self.std
        return (pixels, None if mask is None else self._tensor(mask)), options

    def _tensor(self, array: np.ndarray) -> Tensor:
        return door.from_host(array).to(self.mean.device, non_blocking=True)

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
            return torch.nn.utils.get_total_norm([p.grad for p in self.net.parameters() if p.grad is not None])
        return torch.nn.utils.clip_grad_norm_(self.net.parameters(), clip)

    @torch.no_grad()
    def _average(self) -> None:
        decay = self.optimizer.ema_decay
        if decay is not None:
            for name, average in self.ema.items():
                average.lerp_(self.named[name], 1 - decay)

    def _arrays(self, tensors: Mapping[str, Tensor]) -> Arrays:
        arrays = {name: door.to_host(tensor) for name, tensor in tensors.items()}
        return in_model_order(self.model, arrays) if arrays else {}
