"""The memory of a training step in torch, counted without a device: every tensor is on the meta device.

Meta tensors have shapes and no values, so the step runs operation by operation as on CUDA, at no
cost; a dispatch mode adds up the live storages. A real device also needs its context, fragments
that its allocator cannot reuse, and the workspaces of its libraries.
"""

import weakref
from typing import Any, NamedTuple

import spec
from spec import console

ENGINES = ("masked", "visible")


class Held(NamedTuple):
    """Bytes at the peak of one step, by kind."""

    parameters: int
    gradients: int
    moments: int
    ema: int
    activations: int  # everything else: saved for the backward pass, and temporary

    @property
    def peak(self) -> int:
        return sum(self)


def held(model: spec.FCMAE, batch_size: int, engine: str, dtype: str, *, remat: bool, ema: bool) -> Held:
    """The memory of one step. Each moment and the EMA are as large as the parameters; AdamW adds nothing."""
    import torch

    from backends.torch.model import FCMAE

    with torch.device("meta"):
        net = FCMAE(model, getattr(torch, dtype))
        images = torch.empty(batch_size, *model.image_size, model.encoder.in_chans)
        mask = torch.empty(batch_size, *model.grid, dtype=torch.uint8)
    own = sum(p.untyped_storage().nbytes() for p in net.parameters())
    tracker = _tracker()
    with tracker:
        options = {"engine": engine, "visible": spec.visible_patches(model), "remat": remat, "loss_only": True}
        net(images, mask, **options)["loss"].backward()
    gradients = sum(p.grad.untyped_storage().nbytes() for p in net.parameters() if p.grad is not None)
    return Held(own, gradients, 2 * own, own if ema else 0, tracker.peak - gradients)


def table(model: spec.FCMAE, name: str, batch_size: int, dtype: str, *, ema: bool) -> str:
    """Two rows per engine, in GB: activations of blocks saved, and recomputed in the backward pass."""
    title = f"{name}, one training step in torch, {batch_size} images of {model.image_size[0]} px, {dtype}; GB, counted"
    rows = [["engine", "blocks", "parameters", "gradients", "moments", "EMA", "activations", "peak"]]
    for engine in ENGINES:
        for remat in (False, True):
            row = held(model, batch_size, engine, dtype, remat=remat, ema=ema)
            sizes = (f"{size / 1e9:.2f}" for size in (*row, row.peak))
            rows.append([engine, "recomputed" if remat else "saved", *sizes])
    return "\n".join([title, "", console.table(rows, "<<>")])


def _tracker() -> Any:
    """A dispatch mode; `peak` is the most bytes that tensors created under it held at once."""
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
