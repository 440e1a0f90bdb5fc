"""The depthwise convolution on visible patches for CUDA, in Triton: no tile is ever written out.

Sites are the rows of x.view(-1, C). A site's window is read through the halo, row by row;
neighbouring sites share most of it, which the caches turn into one read.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

SITES, CHANNELS, WARPS = 32, 64, 4
SPLITS = 64
"""Parts into which the sum over sites of the weight gradient is cut, to fill the device."""


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, halo: Tensor) -> Tensor:
    """y (N, K, P, P, C) of x alike, weight (C, 1, k, k) and `Layout._patch_halo`; accumulates in float32 at least."""
    channels, sites = x.shape[-1], x.numel() // x.shape[-1]
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    grid = triton.cdiv(sites, SITES), triton.cdiv(channels, CHANNELS)
    taps = weight.flatten(1).t().contiguous()  # k*k C: channels last, as in x
    start = weight.new_zeros(channels) if bias is None else bias
    shape = sites, channels, x.shape[2], halo.shape[1], weight.shape[-1]
    conv_kernel[grid](x.contiguous(), taps, start, halo, y, *shape, **meta(x))
    return y


def weight_gradient(x: Tensor, grad: Tensor, weight: Tensor, halo: Tensor) -> Tensor:
    """dw (C, 1, k, k): at each kernel offset, x under the shifted window times grad, summed over sites."""
    (channels, _, k, _), sites = weight.shape, x.numel() // x.shape[-1]
    blocks = triton.cdiv(sites, SITES)
    splits = min(SPLITS, blocks)
    parts = x.new_zeros(splits, k, triton.next_power_of_2(k), channels, dtype=accumulator(x))
    grid = k, triton.cdiv(channels, CHANNELS), splits
    shape = sites, channels, x.shape[2], halo.shape[1], k, parts.shape[2], triton.cdiv(blocks, splits)
    gradient_kernel[grid](x.contiguous(), grad.contiguous(), halo, parts, *shape, **meta(x))
    return parts.sum(0)[:, :k].permute(2, 0, 1)[:, None].to(x.dtype)


def meta(x: Tensor) -> dict[str, Any]:
    """How the kernels cut sites and channels, and whether they add up in float64."""
    return {"SITES": SITES, "CHANNELS": CHANNELS, "DOUBLE": x.dtype == torch.float64, "num_warps": WARPS}


def accumulator(x: Tensor) -> torch.dtype:
    """What sums over values of x are made in."""
    return torch.promote_types(x.dtype, torch.float32)


@triton.jit
def conv_kernel(
    x,  # sites, channels
    taps,  # k * k, channels
    bias,  # channels
    halo,  # patches, reach, reach
    y,  # sites, channels
    sites,
    channels,
    side: tl.constexpr,
    reach: tl.constexpr,
    k: tl.constexpr,
    SITES: tl.constexpr,
    CHANNELS: tl.constexpr,
    DOUBLE: tl.constexpr,
):
    """A block of sites and channels: bias, then one multiply-add a kernel offset."""
    accumulator = tl.float64 if DOUBLE else tl.float32
    site = tl.program_id(0).to(tl.int64) * SITES + tl.arange(0, SITES)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside, used = site < sites, channel < channels
    corner = halo + (site // (side * side)) * (reach * reach) + (site // side % side) * reach + site % side
    start = tl.load(bias + channel, used, 0.0).to(accumulator)
    total = tl.zeros((SITES, CHANNELS), accumulator) + start[None, :]
    for i in range(k):
        for j in range(k):
            row = tl.load(corner + i * reach + j, inside, sites)
            there = (row < sites)[:, None] & used[None, :]
            value = tl.load(x + row[:, None] * channels + channel[None, :], there, 0.0)
            tap = tl.load(taps + (i * k + j) * channels + channel, used, 0.0)
            total += value.to(accumulator) * tap[None, :].to(accumulator)
    tl.store(y + site[:, None] * channels + channel[None, :], total, inside[:, None] & used[None, :])


@triton.jit
def gradient_kernel(
    x,  # sites, channels
    grad,  # sites, channels
    halo,  # patches, reach, reach
    parts,  # splits, k, width, channels: width is k rounded up to a power of 2
    sites,
    channels,
    side: tl.constexpr,
    reach: tl.constexpr,
    k: tl.constexpr,
    width: tl.constexpr,
    turns: tl.constexpr,  # blocks of sites a split
    SITES: tl.constexpr,
    CHANNELS: tl.constexpr,
    DOUBLE: tl.constexpr,
):
    """One row of the kernel, a block of channels and every so-manieth block of sites."""
    accumulator = tl.float64 if DOUBLE else tl.float32
    i, split, splits = tl.program_id(0), tl.program_id(2), tl.num_programs(2)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    used = channel < channels
    column = tl.arange(0, width)
    total = tl.zeros((width, CHANNELS), accumulator)
    for turn in range(turns):
        site = (turn * splits + split).to(tl.int64) * SITES + tl.arange(0, SITES)
        inside = site < sites
        corner = halo + (site // (side * side)) * (reach * reach) + (site // side % side + i) * reach + site % side
        here = inside[:, None] & used[None, :]
        slope = tl.load(grad + site[:, None] * channels + channel[None, :], here, 0.0).to(accumulator)
        for j in range(k):
            row = tl.load(corner + j, inside, sites)
            there = (row < sites)[:, None] & used[None, :]
            value = tl.load(x + row[:, None] * channels + channel[None, :], there, 0.0).to(accumulator)
            total += tl.where(column[:, None] == j, tl.sum(value * slope, 0)[None, :], 0.0)
    place = parts + ((split * k + i) * width + column[:, None]) * channels + channel[None, :]
    tl.store(place, total, used[None, :])
