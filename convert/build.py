"""Modules of either framework from a model or a checkpoint."""

from typing import Any

import backends
from backends.protocol import BackendError, Dtype
from convert.checkpoint import Checkpoint
from spec import Model


def build(
    source: Model | Checkpoint,
    backend: str | None = None,
    *,
    seed: int = 0,
    dtype: Dtype = "float32",
    device: str | None = None,
) -> Any:
    """A torch.nn.Module or a flax.nnx.Module, with the parameters of a checkpoint, or fresh ones of a model.

    backend: "torch" or "jax"; by default the one that is installed, torch if both are. dtype is what the
    module computes in. BackendError when the framework is not installed.

    >>> import spec
    >>> module = build(spec.classifier("convnextv2_atto", num_classes=10), "torch")
    >>> module.head.weight.shape
    torch.Size([10, 320])
    """
    model = source.model if isinstance(source, Checkpoint) else source
    framework = backends.load(backend or _installed())
    module = framework.build(model, seed=seed, dtype=dtype, device=device)
    if isinstance(source, Checkpoint):
        kind = "float64" if dtype == "float64" else "float32"
        framework.set_arrays(module, {name: array.astype(kind) for name, array in source.arrays.items()})
    return module


def _installed() -> str:
    found = backends.installed()
    if not found:
        raise BackendError("neither torch nor jax is installed; pip install 'twinnext[torch]' or 'twinnext[jax]'")
    return found[0]
