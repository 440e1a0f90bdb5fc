"""torch.export: a .pt2 file, which torch.export.load reads."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

import convert
from backends.protocol import Dtype
from backends.torch.api import from_host
from backends.torch.norm import at_least_float32
from convert import Checkpoint
from export.signature import Signature
from export.verify import Program


class Exported(nn.Module):
    """A module of ours with the inputs and outputs of a signature."""

    def __init__(self, net: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.net, self.signature = net.eval().requires_grad_(False), signature

    def forward(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        return tuple(at_least_float32(value) for value in self.signature.compute(self.net, images, mask))


def module(checkpoint: Checkpoint, signature: Signature, dtype: str) -> Exported:
    """The module to export; its parameters, and what it computes in, are of the dtype."""
    wide: Dtype = "float64" if dtype == "float64" else "float32"
    net = convert.build(checkpoint, "torch", dtype=wide)
    return Exported(net.to(getattr(torch, dtype)), signature)


def program(checkpoint: Checkpoint, signature: Signature) -> Program:
    """The exact outputs: in float64, by the backend."""
    return _callable(module(checkpoint, signature, "float64"))


def example(signature: Signature) -> tuple[Tensor, ...]:
    """Inputs to trace with."""
    return tuple(torch.zeros(shape) for shape in signature.shapes(2, 2, 3))


def dynamic(signature: Signature) -> tuple[dict[int, Any], ...]:
    """The symbolic axes of each input; torch takes a side of one patch for constant, hence 2 patches at least."""
    shapes = signature.shapes(Dim("n"), Dim("h", min=2), Dim("w", min=2))
    return tuple({axis: side for axis, side in enumerate(shape) if not isinstance(side, int)} for shape in shapes)


def write(path: Path, checkpoint: Checkpoint, signature: Signature, dtype: str) -> None:
    """Write the program to a file."""
    traced = torch.export.export(
        module(checkpoint, signature, dtype), example(signature), dynamic_shapes=dynamic(signature)
    )
    torch.export.save(traced, path)


def load(path: Path, signature: Signature) -> Program:
    """The program in a file."""
    return _callable(torch.export.load(path).module())


def _callable(m: Any) -> Program:
    @torch.no_grad()
    def call(*inputs: np.ndarray) -> list[np.ndarray]:
        return [value.numpy() for value in m(*map(from_host, inputs))]

    return call
