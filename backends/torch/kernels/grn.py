"""GRN's sums for CUDA, in Triton: what torch reads several times, and writes between, is read once.

Activations are x (N, sites of an image, C). Sums over sites are made in parts, one a program,
so that few images still fill the device; the parts are added in float32 at least.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.torch.kernels.depthwise import CHANNELS, SITES, accumulator, meta

PROGRAMS = 2048
"""As many as fill a device several times over; sums are cut into more parts where there are fewer."""


def gelu_and_squares(x: Tensor) -> tuple[Tensor, Tensor]:
    """GELU of x, and the sum of its squares over the sites of each image (N, C), in one pass over x."""
    grid, parts, shape = _plan(x)
    y = torch.empty_like(x)
    gelu_kernel[grid](x, y, parts, *shape, **meta(x))
    return y, parts.sum(1)


def scaled_gradients(x: Tensor, grad: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x * scale + shift: by x, by scale (N, C) and by shift, image by image (N, C).

    scale is (N, C) or (1, C); x and grad are read once.
    """
    grid, scales, shape = _plan(x)
    shifts, dx = torch.empty_like(scales), torch.empty_like(x)
    step = scale.shape[1] if scale.shape[0] > 1 else 0
    scaled_kernel[grid](x, grad, scale, dx, scales, shifts, *shape[:2], step, shape[2], **meta(x))
    return dx, scales.sum(1), shifts.sum(1)


def _plan(x: Tensor) -> tuple[tuple[int, int, int], Tensor, tuple[int, int, int]]:
    """The grid of programs, room for their parts (N, splits, C), and what they must know of x."""
    images, sites, channels = x.shape
    turns, columns = triton.cdiv(sites, SITES), triton.cdiv(channels, CHANNELS)
    splits = min(turns, triton.cdiv(PROGRAMS, images * columns))
    parts = x.new_empty(images, splits, channels, dtype=accumulator(x))
    return (images, columns, splits), parts, (sites, channels, triton.cdiv(turns, splits))


@triton.jit
def gelu_kernel(
    x,  # images, sites, channels
    y,  # images, sites, channels
    parts,  # images, splits, channels
    sites,
    channels,
    turns,  # blocks of sites a split
    SITES: tl.constexpr,
    CHANNELS: tl.constexpr,
    DOUBLE: tl.constexpr,
):
    """One image, a block of channels and every so-manieth block of sites: x Phi(x), and its squares as it is stored."""
    image, split, splits = tl.program_id(0).to(tl.int64), tl.program_id(2), tl.num_programs(2)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    total = tl.zeros((CHANNELS,), tl.float64 if DOUBLE else tl.float32)
    for turn in range(turns):
        site = (turn * splits + split) * SITES + tl.arange(0, SITES)
        here = (site < sites)[:, None] & (channel < channels)[None, :]
        place = (image * sites + site[:, None]) * channels + channel[None, :]
        value = tl.load(x + place, here, 0.0).to(total.dtype)
        stored = (0.5 * value * (1 + tl.erf(value * 0.7071067811865476))).to(y.dtype.element_ty)
        tl.store(y + place, stored, here)
        total += tl.sum(stored.to(total.dtype) * stored.to(total.dtype), 0)
    tl.store(parts + (image * splits + split) * channels + channel, total, channel < channels)


@triton.jit
def scaled_kernel(
    x,  # images, sites, channels
    grad,  # images, sites, channels
    scale,  # images or 1, channels
    dx,  # images, sites, channels
    scales,  # images, splits, channels
    shifts,  # images, splits, channels
    sites,
    channels,
    step,  # from one image's scale to the next: channels, or 0 where all share it
    turns,  # blocks of sites a split
    SITES: tl.constexpr,
    CHANNELS: tl.constexpr,
    DOUBLE: tl.constexpr,
):
    """One image, a block of channels and every so-manieth block of sites: dx, and the parts of both sums."""
    image, split, splits = tl.program_id(0).to(tl.int64), tl.program_id(2), tl.num_programs(2)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    used = channel < channels
    by_scale = tl.zeros((CHANNELS,), tl.float64 if DOUBLE else tl.float32)
    by_shift = by_scale
    factor = tl.load(scale + image * step + channel, used, 0.0).to(by_scale.dtype)
    for turn in range(turns):
        site = (turn * splits + split) * SITES + tl.arange(0, SITES)
        here = (site < sites)[:, None] & used[None, :]
        place = (image * sites + site[:, None]) * channels + channel[None, :]
        value = tl.load(x + place, here, 0.0).to(by_scale.dtype)
        slope = tl.load(grad + place, here, 0.0).to(by_scale.dtype)
        by_scale += tl.sum(value * slope, 0)
        by_shift += tl.sum(slope, 0)
        tl.store(dx + place, slope * factor[None, :], here)
    part = (image * splits + split) * channels + channel
    tl.store(scales + part, by_scale, used)
    tl.store(shifts + part, by_shift, used)
