"""MinkowskiEngine's sparse tensor: what the published code runs on, and the independent witness of the other engines.

Optional, and imported on first use: `make minkowski` builds and installs it. In its kernels
the first spatial axis, the row, runs fastest.
"""

import collections
import collections.abc
import importlib
import os
import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.func import functional_call

import spec
from backends.protocol import BackendError
from backends.torch.sites.masked import Masked
from backends.torch.steps import at_least_float32


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


class Images:
    """The batch before the stem, which convolves it densely, as in the published code: a pixel is no site yet."""

    def __init__(self, dense: Masked) -> None:
        self.dense = dense

    @property
    def dtype(self) -> torch.dtype:
        return self.dense.dtype

    def patch_conv(self, weight: Tensor, bias: Tensor) -> "Minkowski":
        """The visible sites, known from the mask and never from the values: a visible site may well be zero."""
        dense = self.dense.patch_conv(weight, bias)
        shape = dense.x.shape[:3]
        keep = dense.x.new_ones(shape, dtype=torch.bool) if dense.keep is None else dense.keep[..., 0]
        coordinates = keep.nonzero().int().contiguous()
        return Minkowski(ME.SparseTensor(dense.x[keep], coordinates=coordinates), shape)


class Minkowski:
    """x (M, C): the visible sites of all images, in the order that the engine keeps them in.

    sparse holds them and their coordinates: image, row and column, counted in sites of the stem,
    of which shape (N, H, W) is the full grid. The engine convolves in float32 or float64, whatever x is in.
    """

    def __init__(self, sparse: Any, shape: torch.Size) -> None:
        self.sparse, self.shape = sparse, shape
        self.only_visible = False  # they are, and yet not in an array whose first axis is the image

    @classmethod
    def enter(cls, images: Tensor, mask: Tensor | None, patch: int) -> Images:
        """BackendError on a device that the engine was not built for."""
        if images.is_cuda and not ME.is_cuda_available():
            raise BackendError(
                f"device: this MinkowskiEngine knows no CUDA; move the model from {images.device} to cpu"
            )
        return Images(Masked.enter(images, mask, patch))

    @property
    def x(self) -> Tensor:
        return self.sparse.F

    @property
    def dtype(self) -> torch.dtype:
        return self.x.dtype

    @property
    def stride(self) -> int:
        """Sites of the stem a site, along an edge."""
        return int(self.sparse.tensor_stride[0])

    @cached_property
    def coordinates(self) -> tuple[Tensor, ...]:
        """Image, row and column of each site, (M,) each, rows and columns in sites."""
        image, row, column = self.sparse.C.long().unbind(1)
        return image, row // self.stride, column // self.stride

    def prepare(self, body: dict[str, spec.Step]) -> "Minkowski":
        """Self: the engine keeps what it needs."""
        return self

    def map(self, function: Callable[[Tensor], Tensor]) -> "Minkowski":
        return self._like(function(self.x))

    def plus(self, other: "Minkowski", scale: Tensor | None = None) -> "Minkowski":
        """Self plus scale (N,) times other."""
        added = other.x if scale is None else other.x * scale[self.coordinates[0], None]
        return self._like(self.x + added)

    def grid(self) -> Tensor:
        """(N, H, W, C) with exact zeros at removed sites, those of the last row and column included."""
        return self._scatter(self.x.new_zeros(()))

    def patch_conv(self, weight: Tensor, bias: Tensor) -> "Minkowski":
        size = weight.shape[-1]
        kernel = rearrange(at_least_float32(weight), "o i kh kw -> (kw kh) i o").contiguous()
        windows = ME.KernelGenerator(kernel_size=size, stride=size, dimension=2)
        before, manager = self.sparse.coordinate_map_key, self.sparse.coordinate_manager
        after = ME.CoordinateMapKey(before.get_coordinate_size())  # filled in by the convolution
        x = ME.MinkowskiConvolutionFunction.apply(
            at_least_float32(self.x), kernel, windows, MODE, before, after, manager
        )
        x = (x + at_least_float32(bias)).to(self.dtype)
        sparse = ME.SparseTensor(x, coordinate_map_key=after, coordinate_manager=manager)
        return Minkowski(sparse, self.shape)

    def depthwise_conv(self, weight: Tensor, bias: Tensor) -> "Minkowski":
        channels, _, size, _ = weight.shape
        conv = _DepthwiseConv(channels, kernel_size=size, bias=True, dimension=2)
        values = {
            "kernel": rearrange(at_least_float32(weight), "c 1 kh kw -> (kw kh) c"),
            "bias": at_least_float32(bias),
        }
        out = functional_call(conv, values, self.map(at_least_float32).sparse)
        return Minkowski(out, self.shape).map(lambda x: x.to(self.dtype))

    def spatial_norm(self, scope: str) -> Tensor:
        """L2 norm of each channel over the visible sites of a site's own image: (M, C), or (1, C) over the batch."""
        x = at_least_float32(self.x)
        if scope == "batch":
            return torch.linalg.vector_norm(x, dim=0, keepdim=True)
        image = self.coordinates[0]
        return torch.stack([torch.linalg.vector_norm(x[image == n], dim=0) for n in range(self.shape[0])])[image]

    def fill(self, token: Tensor) -> Masked:
        return Masked(self._scatter(token))

    def pool(self) -> Masked:
        x, image = at_least_float32(self.x), self.coordinates[0]
        return Masked(torch.stack([x[image == n].mean(0) for n in range(self.shape[0])]).to(self.dtype))

    def _like(self, x: Tensor) -> "Minkowski":
        """Other values at the same sites."""
        key, manager = self.sparse.coordinate_map_key, self.sparse.coordinate_manager
        return Minkowski(ME.SparseTensor(x, coordinate_map_key=key, coordinate_manager=manager), self.shape)

    def _scatter(self, empty: Tensor) -> Tensor:
        """(N, H, W, C), with `empty` (C,) at removed sites."""
        images, height, width = self.shape
        grid = empty.expand(images, height // self.stride, width // self.stride, self.x.shape[1])
        return grid.index_put(self.coordinates, self.x)
