"""MinkowskiEngine's sparse tensor: what the published code runs on, an independent reference for the other engines.

Optional, and imported on first use: `make minkowski` builds and installs it. In its kernels
the first spatial axis, the row, runs fastest.
"""

import collections
import collections.abc
import importlib
import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.func import functional_call

from backends.protocol import BackendError
from backends.torch.norm import at_least_float32, respond
from backends.torch.space import dense
from backends.torch.space.dense import DenseSpace
from backends.torch.space.protocol import Space


def _load() -> Any:
    """MinkowskiEngine, without the traces that its import would leave; BackendError when it does not load."""
    threads_unset = "OMP_NUM_THREADS" not in os.environ
    if threads_unset:  # it would set 16 on larger machines
        os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    vars(collections)["Sequence"] = collections.abc.Sequence  # its home until Python 3.10
    try:
        with warnings.catch_warnings(action="ignore"):  # it warns of a build without CUDA
            return importlib.import_module("MinkowskiEngine")
    except ImportError as error:
        why = str(error).splitlines()[0]
        raise BackendError(
            f"engine: 'minkowski' does not load ({why}); build it for this Python and torch: make minkowski"
        ) from error
    finally:
        del vars(collections)["Sequence"]
        if threads_unset:
            del os.environ["OMP_NUM_THREADS"]


ME = _load()
MODE = importlib.import_module("MinkowskiEngineBackend._C").ConvolutionMode.DEFAULT
DepthwiseConv: Any = ME.MinkowskiChannelwiseConvolution


class _DepthwiseConv(DepthwiseConv):
    """The engine's depthwise convolution, called with our parameters: its own are never drawn."""

    def reset_parameters(self, is_transpose: bool = False) -> None:
        pass


class PixelSpace(DenseSpace):
    """The images before the stem, which convolves them densely, as in the published code."""

    def patch_conv(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Space]:
        """The visible sites, known from the mask and never from the values: a visible site may well be zero."""
        x = super().patch_conv(x, weight, bias)[0]
        stride, shape = weight.shape[-1], x.shape[:3]
        keep = x.new_ones(shape, dtype=torch.bool) if self.keep is None else self.keep[:, ::stride, ::stride, 0]
        sparse = ME.SparseTensor(x[keep], coordinates=keep.nonzero().int().contiguous())
        return sparse.F, MinkowskiSpace(shape, sparse.coordinate_map_key, sparse.coordinate_manager)


@dataclass(frozen=True, eq=False)
class MinkowskiSpace:
    """x is (M, C): the visible sites of all images, in the order that the engine keeps them in.

    The engine convolves in float32 or float64, whatever x is in.
    """

    shape: torch.Size  # N H W, in sites of the stem
    key: Any  # of this stage's coordinates in the manager
    manager: Any

    @property
    def stride(self) -> int:
        """Sites of the stem per site, along an edge."""
        return int(self.key.get_tensor_stride()[0])

    @cached_property
    def coordinates(self) -> tuple[Tensor, ...]:
        """Image, row and column of each site, (M,) each, rows and columns in sites."""
        image, row, column = self.manager.get_coordinates(self.key).long().unbind(1)
        return image, row // self.stride, column // self.stride

    def grid(self, x: Tensor) -> Tensor:
        """The removed sites of the last row and column included."""
        return self._scatter(x, x.new_zeros(()))

    def broadcast(self, values: Tensor) -> Tensor:
        return values[self.coordinates[0], None]

    def patch_conv(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Space]:
        size = weight.shape[-1]
        kernel = rearrange(at_least_float32(weight), "o i kh kw -> (kw kh) i o").contiguous()
        windows = ME.KernelGenerator(kernel_size=size, stride=size, dimension=2)
        after = ME.CoordinateMapKey(self.key.get_coordinate_size())  # filled in by the convolution
        y = ME.MinkowskiConvolutionFunction.apply(
            at_least_float32(x), kernel, windows, MODE, self.key, after, self.manager
        )
        return (y + at_least_float32(bias)).to(x.dtype), MinkowskiSpace(self.shape, after, self.manager)

    def depthwise_conv(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        channels, _, size, _ = weight.shape
        conv = _DepthwiseConv(channels, kernel_size=size, bias=True, dimension=2)
        values = {
            "kernel": rearrange(at_least_float32(weight), "c 1 kh kw -> (kw kh) c"),
            "bias": at_least_float32(bias),
        }
        sparse = ME.SparseTensor(at_least_float32(x), coordinate_map_key=self.key, coordinate_manager=self.manager)
        return functional_call(conv, values, sparse).F.to(x.dtype)

    def grn(self, x: Tensor, gamma: Tensor, beta: Tensor, eps: float, scope: str) -> Tensor:
        return respond(x, self._norm(at_least_float32(x), scope), gamma, beta, eps)

    def fill(self, x: Tensor, token: Tensor) -> tuple[Tensor, Space]:
        return self._scatter(x, token), DenseSpace()

    def pool(self, x: Tensor) -> tuple[Tensor, Space]:
        wide, image = at_least_float32(x), self.coordinates[0]
        return torch.stack([wide[image == n].mean(0) for n in range(self.shape[0])]).to(x.dtype), DenseSpace()

    def _norm(self, x: Tensor, scope: str) -> Tensor:
        """L2 norm of each channel over the visible sites of a site's own image: (M, C), or (1, C) over the batch."""
        if scope == "batch":
            return torch.linalg.vector_norm(x, dim=0, keepdim=True)
        image = self.coordinates[0]
        return torch.stack([torch.linalg.vector_norm(x[image == n], dim=0) for n in range(self.shape[0])])[image]

    def _scatter(self, x: Tensor, empty: Tensor) -> Tensor:
        """(N, H, W, C), with `empty` (C,) at removed sites."""
        images, height, width = self.shape
        grid = empty.expand(images, height // self.stride, width // self.stride, x.shape[1])
        return grid.index_put(self.coordinates, x)


def enter(images: Tensor, mask: Tensor | None, patch: int) -> tuple[Tensor, Space]:
    """Images (N, H, W, C) and their space; BackendError on a device that the engine was not built for."""
    if images.is_cuda and not ME.is_cuda_available():
        raise BackendError(f"device: this MinkowskiEngine knows no CUDA; move the model from {images.device} to cpu")
    x, space = dense.enter(images, mask, patch)
    return x, PixelSpace(space.keep)
