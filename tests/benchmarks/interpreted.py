"""Run the Triton kernels in Triton's interpreter and write their results to the .npz file of the command line.

A program of its own: the interpreter must be chosen before Triton is first imported.
"""

import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

import backends
import spec
from backends.torch.space import patches
from backends.torch.space.patches import Halo, Layout

SIDES = (8, 4, 2, 1)
SHAPES = ((5, 7), (70, 3))  # channels and k: fewer than a block, and more


class Case(NamedTuple):
    """Two images of 2 x 3 patches, three of them visible."""

    x: torch.Tensor
    grad: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    halo: Halo


def case(side: int, channels: int, k: int) -> Case:
    draw = torch.Generator().manual_seed(side)
    ranks = torch.rand(2, 6, generator=draw).argsort(1).argsort(1)
    layout = Layout.of((ranks >= 3).view(2, 2, 3), 3)
    shapes = (2, 3, side, side, channels), (2, 3, side, side, channels), (channels, 1, k, k), (channels,)
    drawn = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
    return Case(*drawn, layout._patch_halo(side, k // 2))


def cases() -> Iterator[tuple[str, Case]]:
    for side in SIDES:
        for channels, k in SHAPES:
            yield f"side {side}, {channels} channels, kernel {k}", case(side, channels, k)


def whole(engine: str, device: str = "cpu", *, compiled: bool = False) -> dict[str, np.ndarray]:
    """Loss and gradients of a small autoencoder."""
    model = spec.fcmae(depths=(1, 1), dims=(8, 8), image_size=(16, 24), mask_ratio=0.5, decoder_dim=8)
    net = backends.load("torch").build(model, dtype="float64", device=device)
    call = torch.compile(net, fullgraph=True) if compiled else net
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(2, 16, 24, 3, generator=draw, dtype=torch.float64)
    mask = (torch.rand(2, 6, generator=draw).argsort(1).argsort(1) >= 3).view(2, 2, 3)
    loss = call(images.to(device), mask.to(device), engine=engine)["loss"]
    named = dict(net.named_parameters())
    slopes = torch.autograd.grad(loss, list(named.values()))
    found = dict(zip(named, slopes, strict=True)) | {"loss": loss.detach()}
    return {f"whole, {engine}: {name}": value.cpu().numpy() for name, value in found.items()}


def main(path: str) -> None:
    """Each kernel alone, then models that call them as on a GPU."""
    os.environ["TRITON_INTERPRET"] = "1"
    from backends.torch import model
    from backends.torch.kernels import depthwise

    found: dict[str, np.ndarray] = {}
    for name, (x, grad, weight, bias, halo) in cases():
        found[f"{name}: forward"] = depthwise.conv(x, weight, bias, halo.rows).numpy()
        found[f"{name}: without a bias"] = depthwise.conv(x, weight, None, halo.rows).numpy()
        found[f"{name}: weights"] = depthwise.weight_gradient(x, grad, weight, halo.rows).numpy()
    model.use_triton = lambda kernels, device: True
    patches.WHOLE = float("inf")
    for engine in ("masked", "visible"):
        found |= whole(engine)
    np.savez(path, **found)


if __name__ == "__main__":
    main(sys.argv[1])
