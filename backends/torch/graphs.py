"""A gradient recorded as a CUDA graph."""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor, nn

Gradient = Callable[[dict[str, Tensor]], Tensor]
"""The loss of a batch, after its gradients have been added to those of the parameters."""


class GraphedGradient:
    """Records a gradient as a CUDA graph when it is first repeated, and replays that: one launch for all kernels.

    A graph reads and writes fixed memory. Batches are copied to where it reads; gradients stay where it writes
    them. Only the first kind of batch that repeats is recorded; others are computed as usual.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self.kind: Hashable = None  # of the batches that are recorded
        self.inputs: dict[str, Tensor] = {}
        self.gradients: list[Tensor | None] = []
        self.recorded: dict[bool, tuple[torch.cuda.CUDAGraph, Tensor]] = {}  # by whether it adds to gradients
        self.seen: set[Hashable] = set()

    def __call__(self, gradient: Gradient, batch: dict[str, Tensor], key: Hashable) -> Tensor:
        """gradient(batch). key: what else it depends on, beside the shapes of the batch."""
        kind = key, *((name, tensor.shape, tensor.dtype) for name, tensor in batch.items())
        adds = any(p.grad is not None for p in self.parameters)
        if self.kind not in (None, kind) or (adds and not self._in_place()):
            return gradient(batch)
        if (kind, adds) not in self.seen:
            self.seen.add((kind, adds))
            return gradient(batch)
        if self.kind is None:
            self.kind, self.inputs = kind, {name: torch.empty_like(tensor) for name, tensor in batch.items()}
        for name, tensor in batch.items():
            self.inputs[name].copy_(tensor, non_blocking=True)
        if adds not in self.recorded:
            self.recorded[adds] = self._record(gradient, adds)
        graph, loss = self.recorded[adds]
        graph.replay()
        for p, value in zip(self.parameters, self.gradients, strict=True):
            p.grad = value
        return loss

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
