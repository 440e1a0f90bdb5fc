"""Numpy in, numpy out: build a model, read and write its parameters, run it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

import spec
from backends import api
from backends.initial import initial_arrays
from backends.protocol import Arrays, BackendError, Dtype, Engine
from backends.torch.model import FCMAE, Backbone, Classifier
from backends.torch.space.engines import ENGINES
from backends.torch.space.protocol import Space

Net = Classifier | FCMAE | Backbone

NETS: dict[type[spec.Model], Callable[..., Net]] = {
    spec.Classifier: Classifier,
    spec.FCMAE: FCMAE,
    spec.Backbone: Backbone,
}
"""The module of every kind of model."""


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """Disable TF32 unless computing in bfloat16 (cuDNN's convolutions use it for float32 by default)."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=cudnn.enabled, benchmark=cudnn.benchmark, allow_tf32=dtype == torch.bfloat16):
        yield


@contextmanager
def evaluating(m: Net) -> Iterator[None]:
    """The precision that m computes in, and evaluation mode, in which no path is dropped."""
    training = m.training
    m.training = False  # of the model alone, which is where drop path is decided
    try:
        with precision(m.dtype):
            yield
    finally:
        m.training = training


def build(model: spec.Model, *, seed: int = 0, dtype: Dtype = "float32", device: str | None = None) -> Net:
    """A torch.nn.Module with fresh parameters drawn from `seed`; dtype is what it computes in."""
    explicit = torch.bfloat16 if dtype == "bfloat16" else None  # the parameters stay float32
    m = NETS[type(model)](model, explicit)
    if dtype == "float64":
        m.double()
    m.to(place(device))
    set_arrays(m, initial_arrays(model, seed))
    return m


def place(device: str | None) -> torch.device:
    """The device of a name such as "cpu", "cuda" or "cuda:1", CPU by default; BackendError if it is not available."""
    try:
        return torch.zeros((), device=device or "cpu").device
    except (RuntimeError, AssertionError):
        there = ", ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
        raise BackendError(f"device: torch cannot use {device!r} here; it sees {there}") from None


def best() -> str:
    """The default device for training."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def get_arrays(m: Net) -> Arrays:
    """The parameters in canonical names, layouts and order, as copies on the host."""
    arrays = {name: p.detach().cpu().numpy().copy() for name, p in m.named_parameters()}
    return api.in_model_order(m.model, arrays)


@torch.no_grad()
def set_arrays(m: Net, arrays: Mapping[str, np.ndarray]) -> None:
    """Overwrite the parameters; BackendError lists missing, unknown and misshapen names."""
    api.check_arrays(m.model, arrays)
    for name, parameter in m.named_parameters():
        parameter.copy_(from_host(arrays[name]))


@torch.no_grad()
def forward(
    m: Net,
    images: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    engine: Engine | None = None,
    kernels: str = "auto",
    intermediates: bool = False,
) -> Arrays:
    """Evaluate, numpy in and out; see `backends.protocol.Backend.forward`."""
    found: Arrays = {}

    def record(path: str, x: torch.Tensor, space: Space) -> None:
        found[path] = to_host(space.grid(x))

    options = api.choose(m.model, ENGINES, engine, images, mask, mask)
    with evaluating(m):
        out = m(*_inputs(m, images, mask), **options, kernels=kernels, record=record if intermediates else None)
    return found | {name: to_host(value) for name, value in out.items()}


def gradients(
    m: FCMAE, images: np.ndarray, mask: np.ndarray, *, engine: Engine | None = None, kernels: str = "auto"
) -> Arrays:
    """Gradients of the FCMAE loss, in canonical names and layouts."""
    if not (mask != 0).any():
        raise BackendError("mask: nothing is removed, so there is no loss; remove at least one patch")
    options = api.choose(m.model, ENGINES, engine, images, mask, mask)
    with evaluating(m):
        out = m(*_inputs(m, images, mask), **options, kernels=kernels, loss_only=True)
        grads = torch.autograd.grad(out["loss"], list(m.parameters()))
    named = {name: to_host(g) for (name, _), g in zip(m.named_parameters(), grads, strict=True)}
    return api.in_model_order(m.model, named)


def _inputs(m: Net, images: np.ndarray, mask: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    parameter = next(m.parameters())
    wide = torch.promote_types(parameter.dtype, torch.float32)
    pixels = from_host(images).to(parameter.device, wide)
    return pixels, None if mask is None else from_host(mask).to(parameter.device)


def from_host(array: np.ndarray) -> torch.Tensor:
    """A tensor over the array, or over a copy where it is read-only (as JAX's are) or not contiguous.

    bfloat16 becomes float32: numpy has it from ml_dtypes only, and torch does not accept that.
    """
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    return torch.from_numpy(np.require(array, requirements=("C", "W")))


def to_host(value: torch.Tensor) -> np.ndarray:
    """A copy on the host; bfloat16 becomes float32."""
    value = value.detach()
    return (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy().copy()
