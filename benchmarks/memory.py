"""What a training step in torch holds in memory, counted without a device: every tensor is of the meta device.

Meta tensors have shapes and no values, so the step runs as on CUDA, operation by operation, and
costs nothing; a tracker adds up the storages that are alive. Beyond what it counts a device needs
its context, what its allocator cannot reuse, and the workspaces of its libraries.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import spec

ENGINES = ("masked", "visible")


@dataclass(frozen=True)
class Held:
    """Bytes at the peak of one step, and what they are."""

    engine: str
    remat: bool
    parameters: int
    gradients: int
    moments: int
    average: int
    activations: int  # all else at the peak: what the backward pass needs, and what is in flight

    @property
    def peak(self) -> int:
        return self.parameters + self.gradients + self.moments + self.average + self.activations


def held(model: spec.FCMAE, batch_size: int, engine: str, dtype: str, *, remat: bool, ema: bool) -> Held:
    """One step under the tracker. Moments and average are as large as the parameters each; AdamW adds nothing."""
    import torch

    from backends.torch.model import FCMAE

    with torch.device("meta"):
        net = FCMAE(model, getattr(torch, dtype))
        images = torch.empty(batch_size, *model.image_size, model.encoder.in_chans)
        mask = torch.empty(batch_size, *model.grid, dtype=torch.uint8)
    own = sum(p.untyped_storage().nbytes() for p in net.parameters())
    tracker = _tracker()
    with tracker:
        net(images, mask, engine=engine, visible=spec.visible_patches(model), remat=remat)["loss"].backward()
    gradients = sum(p.grad.untyped_storage().nbytes() for p in net.parameters() if p.grad is not None)
    average = own if ema else 0
    return Held(engine, remat, own, gradients, 2 * own, average, tracker.peak - gradients)


def table(model: spec.FCMAE, name: str, batch_size: int, dtype: str, *, ema: bool) -> str:
    """A row for each engine, with what blocks hold kept and computed again."""
    lines = [
        f"{name}, one training step in torch, {batch_size} images of {model.image_size[0]} px, {dtype}; GB, counted",
        "",
        f"{'engine':<10}{'blocks':>10}{'parameters':>12}{'gradients':>11}{'moments':>9}{'average':>9}"
        f"{'activations':>13}{'peak':>8}",
    ]
    for engine in ENGINES:
        for remat in (False, True):
            row = held(model, batch_size, engine, dtype, remat=remat, ema=ema)
            cells = (row.parameters, row.gradients, row.moments, row.average, row.activations, row.peak)
            widths = (12, 11, 9, 9, 13, 8)
            figures = "".join(f"{cell / 1e9:>{width}.2f}" for cell, width in zip(cells, widths, strict=True))
            lines.append(f"{engine:<10}{'again' if remat else 'kept':>10}{figures}")
    return "\n".join(lines)


def _tracker() -> Any:
    """A dispatch mode that knows in `peak` the most bytes that tensors made under it held at once."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Tracker(TorchDispatchMode):
        now = peak = 0

        def __init__(self) -> None:
            super().__init__()
            self.known = weakref.WeakSet[Any]()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if not func.is_view:
                given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
                for tensor in tree_leaves(out):
                    if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in given:
                        self._count(tensor.untyped_storage())
            return out

        def _count(self, storage: Any) -> None:
            if storage not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._forget, storage.nbytes())

        def _forget(self, size: int) -> None:
            self.now -= size

    return Tracker()
