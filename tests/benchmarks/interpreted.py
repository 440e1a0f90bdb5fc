"""What the Triton kernels compute in Triton's interpreter, written to the .npz file that is named.

A program of its own: the interpreter must be chosen before Triton is first imported.
"""

import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from backends.torch.depthwise import Halo
from backends.torch.sites.visible import Layout

SIDES = (8, 4, 2, 1)
SHAPES = ((5, 7), (70, 3))  # channels and k: fewer than a block, and more

SCOPES = {"image": (1, 2, 3), "batch": (0, 1, 2, 3)}
FACTORS = ("x", "scale", "shift")


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
    layout = Layout((ranks >= 3).view(2, 2, 3), 3)
    shapes = (2, 3, side, side, channels), (2, 3, side, side, channels), (channels, 1, k, k), (channels,)
    drawn = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
    return Case(*drawn, layout._patch_halo(side, k // 2))


def cases() -> Iterator[tuple[str, Case]]:
    for side in SIDES:
        for channels, k in SHAPES:
            yield f"side {side}, {channels} channels, kernel {k}", case(side, channels, k)


def main(path: str) -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    from backends.torch import norm
    from backends.torch.kernels import depthwise, grn

    norm.kernels = grn

    found: dict[str, np.ndarray] = {}
    for name, (x, grad, weight, bias, halo) in cases():
        found[f"{name}: forward"] = depthwise.conv(x, weight, bias, halo.rows).numpy()
        found[f"{name}: without a bias"] = depthwise.conv(x, weight, None, halo.rows).numpy()
        found[f"{name}: weights"] = depthwise.weight_gradient(x, grad, weight, halo.rows).numpy()
        for scope, axes in SCOPES.items():
            found[f"{name}: squares, {scope}"] = norm._squares_by_kernel(x, axes).numpy()
            gradients = norm._gradients_by_kernel(x, grad, x.sum(axes, keepdim=True))
            found |= {f"{name}: by {by}, {scope}": g.numpy() for by, g in zip(FACTORS, gradients, strict=True)}
    np.savez(path, **found)


if __name__ == "__main__":
    main(sys.argv[1])
