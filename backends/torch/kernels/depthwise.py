"""The depthwise convolution on visible patches for CUDA, in Triton: only visible neighbours are read.

A program owns a few rows of one patch and a block of channels, and walks the halo of those rows.
The part of a halo row that lies in one neighbouring patch is skipped as a whole where that patch is
removed. A loaded value feeds every sum it contributes to; the sums stay in registers. No atomics:
the order of every sum is fixed.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor, library


class Tiling(NamedTuple):
    """What one program takes. Of the weight gradient only: kernel rows, and the number of programs in all."""

    rows: int  # of a patch
    taps: int
    channels: int
    programs: int = 2112  # 16 per multiprocessor of an H100 or H200


CONV = {8: Tiling(1, 7, 64), 4: Tiling(1, 7, 128), 2: Tiling(2, 7, 128), 1: Tiling(1, 7, 256)}
GRADIENT = {8: Tiling(2, 2, 128, 1056), 4: Tiling(4, 2, 64), 2: Tiling(2, 2, 128), 1: Tiling(1, 2, 256, 1056)}
"""Side of a patch -> the fastest tiling on an H200. Other sides take one row: sums of any side up to 16 fit."""

OTHER = Tiling(1, 1, 64)


def compile_ahead(stages: Iterable[tuple[int, int]], k: int, dtype: torch.dtype) -> None:
    """Start to compile the kernels for stages (side of a patch, channels) in threads, and return."""
    pool, double = ThreadPoolExecutor(), dtype == torch.float64
    wide, index = torch.promote_types(dtype, torch.float32), torch.int64
    warm_gradient, warm_conv = (
        partial(kernel.warmup, grid=(1,), num_warps=1) for kernel in (gradient_kernel, conv_kernel)
    )
    for side, channels in stages:
        rows, taps, width, _ = GRADIENT.get(side, OTHER)
        pool.submit(warm_gradient, dtype, dtype, index, wide, 1, 1, 1, channels, side, k, rows, taps, width, double)
        rows, _, width, _ = CONV.get(side, OTHER)
        for biased in (True, False):
            pool.submit(warm_conv, dtype, dtype, dtype, index, dtype, 1, channels, side, k, rows, width, biased, double)
    pool.shutdown(wait=False)


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, halo: Tensor) -> Tensor:
    """Convolve x (N, K, P, P, C) with weight (C, 1, k, k); halo as `Halo.rows` of patches. Sums in float32 at least."""
    taps = weight.flatten(1).t().contiguous()  # k*k C: channels last, as in x
    return _conv(x.contiguous(), taps, taps if bias is None else bias, halo, weight.shape[-1], bias is not None)


@library.custom_op("twinnext::depthwise_conv", mutates_args=())  # inductor analyses a kernel at each use: seconds
def _conv(x: Tensor, taps: Tensor, bias: Tensor, halo: Tensor, k: int, biased: bool) -> Tensor:
    channels, side = x.shape[-1], x.shape[2]
    tiling = CONV.get(side, OTHER)
    y, sites = torch.empty_like(x), x.numel() // channels
    grid = sites // (side * tiling.rows), triton.cdiv(channels, tiling.channels)
    shape = sites, channels, side, k, tiling.rows, tiling.channels
    conv_kernel[grid](x, taps, bias, halo, y, *shape, biased, x.dtype == torch.float64, num_warps=1)
    return y


_conv.register_fake(lambda x, *_: torch.empty_like(x))


def parameter_gradients(x: Tensor, grad: Tensor, weight: Tensor, halo: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `conv` by its weight (C, 1, k, k) and bias (C,), in one pass over grad."""
    k = weight.shape[-1]
    total = _gradient_parts(x.contiguous(), grad.contiguous(), halo, k).sum(0).to(x.dtype)
    return total[: k * k].t().reshape(weight.shape), total[-1]


@library.custom_op("twinnext::depthwise_gradient_parts", mutates_args=())
def _gradient_parts(x: Tensor, grad: Tensor, halo: Tensor, k: int) -> Tensor:
    """What each split of the sites adds to the gradients: (splits, kernel offsets and the bias, C)."""
    tiling, parts = GRADIENT.get(x.shape[2], OTHER), _empty_parts(x, grad, halo, k)
    channels, side, splits = x.shape[-1], x.shape[2], len(parts)
    sites = x.numel() // channels
    blocks = sites // (side * tiling.rows)
    grid = splits, triton.cdiv(channels, tiling.channels), triton.cdiv(k, tiling.taps)
    shape = sites, blocks, triton.cdiv(blocks, splits), channels, side, k, tiling.rows, tiling.taps, tiling.channels
    gradient_kernel[grid](x, grad, halo, parts, *shape, x.dtype == torch.float64, num_warps=1)
    return parts


@_gradient_parts.register_fake
def _empty_parts(x: Tensor, grad: Tensor, halo: Tensor, k: int) -> Tensor:
    channels, side = x.shape[-1], x.shape[2]
    rows, taps, width, programs = GRADIENT.get(side, OTHER)
    blocks, columns, groups = x.numel() // (channels * side * rows), triton.cdiv(channels, width), triton.cdiv(k, taps)
    turns = triton.cdiv(blocks, max(1, programs // (columns * groups)))
    size = triton.cdiv(blocks, turns), groups * taps * k + 1, channels
    return x.new_empty(size, dtype=torch.promote_types(x.dtype, torch.float32))


@triton.jit(do_not_specialize=["sites"])
def conv_kernel(
    x,  # sites, channels
    taps,  # k * k, channels
    bias,  # channels
    halo,  # patches, side + k - 1, side + k - 1: rows of x, or `sites` for nothing
    y,  # sites, channels
    sites,
    channels: tl.constexpr,
    side: tl.constexpr,
    k: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    BIAS: tl.constexpr,
    DOUBLE: tl.constexpr,
):
    """ROWS rows of a patch: one sum per site, and one step of the loop per row of their halo."""
    dtype: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    reach: tl.constexpr = side + k - 1
    near: tl.constexpr = (k // 2 + side - 1) // side  # patches that the border touches on either side
    block = tl.program_id(0).to(tl.int64)
    patch, first = block // (side // ROWS), block % (side // ROWS) * ROWS
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    used = channel < channels
    start = tl.full((CHANNELS,), 0, dtype)
    if BIAS:
        start += tl.load(bias + channel, used, 0.0).to(dtype)
    sums = (start,) * (ROWS * side)
    index = halo + (patch * reach + first) * reach
    for row in range(ROWS + k - 1):
        window = taps + row * k * channels + channel
        for at in tl.static_range(-near, near + 1):
            site = tl.load(index + row * reach + max(k // 2 + at * side, 0))
            if site < sites:
                source = x + site * channels + channel
                for column in tl.static_range(max(k // 2 + at * side, 0), min(k // 2 + at * side + side, reach)):
                    value = tl.load(source + (column - max(k // 2 + at * side, 0)) * channels, used, 0.0).to(dtype)
                    for r in tl.static_range(ROWS):
                        for j in tl.static_range(max(column - k + 1, 0), min(column + 1, side)):
                            there = used & (row >= r) & (row < r + k)
                            tap = tl.load(window + (column - j - r * k) * channels, there, 0.0).to(dtype)
                            total = sums[r * side + j] + value * tap
                            sums = sums[: r * side + j] + (total,) + sums[r * side + j + 1 :]
    target = y + (patch * side + first) * side * channels + channel
    for s in tl.static_range(ROWS * side):
        tl.store(target + s * channels, sums[s].to(y.dtype.element_ty), used)


@triton.jit(do_not_specialize=["sites", "blocks", "turns"])
def gradient_kernel(
    x,  # sites, channels
    grad,  # sites, channels
    halo,  # patches, side + k - 1, side + k - 1: rows of x, or `sites` for nothing
    parts,  # splits, kernel rows of all programs * k + 1, channels: by weight, then by bias
    sites,
    blocks,  # of ROWS rows of a patch
    turns,  # blocks per split
    channels: tl.constexpr,
    side: tl.constexpr,
    k: tl.constexpr,
    ROWS: tl.constexpr,
    TAPS: tl.constexpr,
    CHANNELS: tl.constexpr,
    DOUBLE: tl.constexpr,
):
    """TAPS rows of the kernel: one sum per kernel offset over a contiguous run of blocks."""
    dtype: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    reach: tl.constexpr = side + k - 1
    near: tl.constexpr = (k // 2 + side - 1) // side
    split, top = tl.program_id(0), tl.program_id(2) * TAPS
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    used = channel < channels
    by_bias = tl.full((CHANNELS,), 0, dtype)
    sums = (by_bias,) * (TAPS * k)
    for block in range(split * turns, min(split * turns + turns, blocks)):
        patch, first = tl.cast(block, tl.int64) // (side // ROWS), block % (side // ROWS) * ROWS
        here = grad + (patch * side + first) * side * channels + channel
        found = ()
        for row in tl.static_range(ROWS + TAPS - 1):
            index = halo + (patch * reach + first + top + row) * reach
            for at in tl.static_range(-near, near + 1):
                found = found + (tl.load(index + max(k // 2 + at * side, 0), first + top + row < reach, sites),)
        slopes = ()
        for s in tl.static_range(ROWS * side):
            slopes = slopes + (tl.load(here + s * channels, used, 0.0),)
            by_bias += slopes[s].to(dtype)
        for row in tl.static_range(ROWS + TAPS - 1):
            values = ()  # of a whole row of the halo: many loads on their way at once
            for at in tl.static_range(-near, near + 1):
                site = found[row * (2 * near + 1) + at + near]
                source = x + site * channels + channel
                there = channel < tl.where(site < sites, channels, 0)
                for column in tl.static_range(max(k // 2 + at * side, 0), min(k // 2 + at * side + side, reach)):
                    values = values + (tl.load(source + (column - max(k // 2 + at * side, 0)) * channels, there, 0.0),)
            for at in tl.static_range(-near, near + 1):
                if found[row * (2 * near + 1) + at + near] < sites:
                    for column in tl.static_range(max(k // 2 + at * side, 0), min(k // 2 + at * side + side, reach)):
                        for r in tl.static_range(max(row - TAPS + 1, 0), min(row + 1, ROWS)):
                            for j in tl.static_range(max(column - k + 1, 0), min(column + 1, side)):
                                product = values[column].to(dtype) * slopes[r * side + j].to(dtype)
                                sums = (
                                    sums[: (row - r) * k + column - j]
                                    + (sums[(row - r) * k + column - j] + product,)
                                    + sums[(row - r) * k + column - j + 1 :]
                                )
    rows = tl.num_programs(2) * (TAPS * k) + 1
    target = parts + (split.to(tl.int64) * rows + top * k) * channels + channel
    for i in tl.static_range(TAPS):
        for j in tl.static_range(k):
            tl.store(target + (i * k + j) * channels, sums[i * k + j], used)
    if top == 0:
        tl.store(target + (rows - 1) * channels, by_bias, used)
