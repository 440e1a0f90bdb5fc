"""Compiled steps, and a gradient recorded as a CUDA graph."""

import warnings
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor, nn

from backends.torch.model import FCMAE, Model
from backends.torch.steps import Dense, LayerNorm, Residual

KINDS = 64
"""Variants that dynamo keeps of what is compiled here: stages, decoder and head, with and without drop path and
gradients. Its own limit is 8."""

OPTIONS = {"realize_opcount_threshold": 200}
"""Of inductor. At its own 30 it writes what is between GRN's gradient and GELU's to memory, and reads it back."""


def compile_steps(net: Model) -> None:
    """Compile the blocks, norms, dense layers and the loss of a model, each where it is called.

    Blocks of the same shapes share what is compiled: seconds, where the model as one graph takes minutes.
    """
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # dynamo asks for it
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")  # float32 products are exact on purpose
    torch._dynamo.config.recompile_limit = max(KINDS, torch._dynamo.config.recompile_limit)
    modules = dict(net.named_modules())
    for step in [modules[name] for name in net.names if name in modules]:
        if isinstance(step, Residual | LayerNorm | Dense):
            step.compile(fullgraph=True, dynamic=False, options=OPTIONS)
    if isinstance(net, FCMAE):
        net.masked_loss = torch.compile(net.masked_loss, fullgraph=True, dynamic=False)


Gradient = Callable[[dict[str, Tensor]], Tensor]
"""The loss of a batch, after its gradients have been added to those of the parameters."""


class GraphedGradient:
    """Records a gradient as a CUDA graph when it is first repeated, and replays that: one launch for all kernels.

    A graph reads and writes fixed memory. Batches are copied to where it reads; gradients stay where it writes
    them. It is recorded for batches of the first shapes seen; others are computed as usual.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self.inputs: dict[str, Tensor] = {}
        self.gradients: list[Tensor | None] = []
        self.recorded: dict[Hashable, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self.seen: set[Hashable] = set()

    def __call__(self, gradient: Gradient, batch: dict[str, Tensor], key: Hashable) -> Tensor:
        """gradient(batch). key: what else it depends on, beside the shapes of the batch."""
        adds = any(p.grad is not None for p in self.parameters)
        key = key, adds
        if not self._fits(batch) or (adds and not self._in_place()):
            return gradient(batch)
        if key not in self.seen:
            self.seen.add(key)
            return gradient(batch)
        for name, tensor in batch.items():
            self.inputs[name].copy_(tensor, non_blocking=True)
        if key not in self.recorded:
            self.recorded[key] = self._record(gradient, adds)
        graph, loss = self.recorded[key]
        graph.replay()
        for p, value in zip(self.parameters, self.gradients, strict=True):
            p.grad = value
        return loss

    def _fits(self, batch: dict[str, Tensor]) -> bool:
        """Whether the batch has the shapes of the first one; the first one's memory is what graphs read."""
        if not self.inputs:
            self.inputs = {name: torch.empty_like(tensor) for name, tensor in batch.items()}
        shapes = [{name: (t.shape, t.dtype) for name, t in tensors.items()} for tensors in (self.inputs, batch)]
        return shapes[0] == shapes[1]

    def _in_place(self) -> bool:
        """Whether the gradients to add to lie where a graph writes them."""
        return bool(self.gradients) and all(
            p.grad is value for p, value in zip(self.parameters, self.gradients, strict=True)
        )

    def _record(self, gradient: Gradient, adds: bool) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph = torch.cuda.CUDAGraph()
        pool = next((graph.pool() for graph, _ in self.recorded.values()), None)
        with torch.cuda.graph(graph, pool=pool):
            loss = gradient(self.inputs)
        if not adds:
            self.gradients = [p.grad for p in self.parameters]
        return graph, loss
