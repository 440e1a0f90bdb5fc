"""The depthwise convolution on visible sites for CUDA GPUs, in Pallas, compiled by Triton.

x is (N, S, C); a site is a row of `x.reshape(-1, C)`. The sites form B blocks of (h, w) sites, row by
row: visible patches, or whole images. `halo` (B, h + k - 1, w + k - 1) holds the row of each site of a
block and of its border; any value past the last row means that nothing is there.

A program owns some runs of neighbouring sites and some channels. For each row of the kernel it walks
along the runs and their border once: a value that is loaded feeds up to k sums, all in registers.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

RUN = 8
"""The most sites of a run: a program holds one tile of sums for each."""

PROGRAMS = 4096
"""Programs that fill a GPU: the weight gradient is split over sites until there are about as many."""


class Tile(NamedTuple):
    """What one program computes at a time."""

    runs: int
    channels: int
    warps: int


CONV_TILES = {8: Tile(2, 128, 1), 4: Tile(16, 128, 8), 2: Tile(16, 64, 4), 1: Tile(4, 128, 1)}
GRADIENT_TILES = {8: Tile(4, 64, 1), 4: Tile(4, 64, 1), 2: Tile(4, 64, 1), 1: Tile(4, 128, 2)}
"""The tiles by the length of a run."""


def conv(x: Array, weight: Array, bias: Array, halo: Array, *, transposed: bool = False) -> Array:
    """Depthwise convolution (N, S, C) of x alike with weight (k, k, 1, C) and bias (C,), in the dtype of x.

    Sums are made in float32 at least. `transposed` turns the kernel by 180 degrees: the gradient by x.
    """
    plan = Plan.of(x, halo, len(weight))
    wide = plan.wide
    call = plan.call(
        partial(_conv_kernel, plan=plan, transposed=transposed),
        grid=(plan.blocks, plan.channel_blocks),
        result=jax.ShapeDtypeStruct((plan.rows, plan.channels), x.dtype),
    )
    taps = weight.reshape(plan.size**2, plan.channels).astype(wide)
    return call(x.reshape(plan.rows, -1), taps, bias.astype(wide), plan.indices(halo)).reshape(x.shape)


def transposed_conv(grad: Array, weight: Array, halo: Array) -> Array:
    """The gradient by x (N, S, C): the convolution of dy by the kernel turned by 180 degrees."""
    return conv(grad, weight, jnp.zeros(grad.shape[-1:], grad.dtype), halo, transposed=True)


def gradients(x: Array, grad: Array, halo: Array, size: int) -> tuple[Array, Array]:
    """Gradients of weight (k, k, 1, C) and bias (C,) from x and dy (N, S, C), in float32 at least."""
    plan = Plan.of(x, halo, size, gradient=True)
    splits = plan.splits
    parts = [
        jax.ShapeDtypeStruct((splits, size**2, plan.channels), plan.wide),
        jax.ShapeDtypeStruct((splits, plan.channels), plan.wide),
    ]
    call = plan.call(partial(_gradient_kernel, plan=plan), grid=(size, plan.channel_blocks, splits), result=parts)
    flat = (array.reshape(plan.rows, -1) for array in (x, grad))
    weight, bias = call(*flat, plan.indices(halo))
    return weight.sum(0).reshape(size, size, 1, -1), bias.sum(0)


class Plan(NamedTuple):
    """How a call is cut into programs."""

    rows: int  # N S
    channels: int  # C
    height: int  # h
    width: int  # w
    size: int  # k
    dtype: Any  # of x
    tile: Tile

    @classmethod
    def of(cls, x: Array, halo: Array, size: int, *, gradient: bool = False) -> "Plan":
        channels = x.shape[-1]
        height, width = (reach - size + 1 for reach in halo.shape[1:])
        tile = choose_tile(_run(width), channels, jnp.promote_types(x.dtype, jnp.float32).itemsize, gradient=gradient)
        return cls(x.size // channels, channels, height, width, size, x.dtype, tile)

    @property
    def wide(self) -> Any:
        """The dtype of sums."""
        return jnp.promote_types(self.dtype, jnp.float32)

    @property
    def run(self) -> int:
        """The sites of a run: neighbours along a row of a block."""
        return _run(self.width)

    @property
    def reach(self) -> int:
        """The columns of a halo."""
        return self.width + self.size - 1

    @property
    def halo_size(self) -> int:
        """The entries of the halo."""
        return self.rows // (self.height * self.width) * (self.height + self.size - 1) * self.reach

    @property
    def blocks(self) -> int:
        """Blocks of runs."""
        return pl.cdiv(self.rows // self.run, self.tile.runs)

    @property
    def channel_blocks(self) -> int:
        return pl.cdiv(self.channels, self.tile.channels)

    @property
    def splits(self) -> int:
        """Parts into which the sum over sites of the weight gradient is cut."""
        programs = PROGRAMS // self.tile.warps
        return max(1, min(self.blocks, programs // (self.size * self.channel_blocks)))

    def indices(self, halo: Array) -> Array:
        """The halo as one vector of 32-bit integers."""
        return halo.astype(jnp.int32).reshape(-1)

    def call(self, kernel: Callable[..., None], grid: tuple[int, ...], result: Any) -> Callable[..., Any]:
        params = plgpu.CompilerParams(num_warps=self.tile.warps, num_stages=1)
        return pl.pallas_call(kernel, grid=grid, out_shape=result, compiler_params=params)

    def runs(self, block: Any) -> tuple[Array, Array]:
        """The runs of a block of them, and where their borders begin in the halo."""
        run = block * self.tile.runs + jnp.arange(self.tile.runs, dtype=jnp.int32)
        per_row = self.width // self.run
        row, start = run // per_row, run % per_row * self.run
        corner = (row // self.height * (self.height + self.size - 1) + row % self.height) * self.reach + start
        return run, corner

    def columns(self, block: Any) -> Array:
        return block * self.tile.channels + jnp.arange(self.tile.channels, dtype=jnp.int32)


def _conv_kernel(x: Any, taps: Any, bias: Any, halo: Any, y: Any, *, plan: Plan, transposed: bool) -> None:
    """y of a block of runs and channels."""
    run, corner = plan.runs(pl.program_id(0))
    channel = plan.columns(pl.program_id(1))
    last = plan.size**2 - 1

    def add(i: Array, sums: list[Array]) -> list[Array]:
        offsets = [i * plan.size + j for j in range(plan.size)]
        factors = [_vector(taps.at[last - at if transposed else at, channel], channel, plan) for at in offsets]
        for column, value in _along(x, halo, corner, i, channel, plan):
            for site, offset in _fed(column, plan):
                sums[site] += value * factors[offset]
        return sums

    start = jnp.broadcast_to(_vector(bias.at[channel], channel, plan), (plan.tile.runs, plan.tile.channels))
    for site, total in enumerate(lax.fori_loop(0, plan.size, add, [start] * plan.run)):
        row = run * plan.run + site
        plgpu.store(y.at[row[:, None], channel[None]], total.astype(y.dtype), mask=_mask(row, channel, plan))


def _gradient_kernel(x: Any, grad: Any, halo: Any, weight: Any, bias: Any, *, plan: Plan) -> None:
    """A row of dw for a block of channels, from every `splits`-th block of runs; and db, in the programs of row 0."""
    i, split, splits = pl.program_id(0), pl.program_id(2), plan.splits
    channel = plan.columns(pl.program_id(1))

    def add(turn: Array, sums: list[Array]) -> list[Array]:
        run, corner = plan.runs(turn * splits + split)
        slopes = [_rows(grad, run * plan.run + site, channel, plan) for site in range(plan.run)]
        for column, value in _along(x, halo, corner, i, channel, plan):
            for site, offset in _fed(column, plan):
                sums[offset] += value * slopes[site]
        return [*sums[:-1], sum(slopes, sums[-1])]

    start = jnp.zeros((plan.tile.runs, plan.tile.channels), plan.wide)
    *columns, total = lax.fori_loop(0, pl.cdiv(plan.blocks, splits), add, [start] * (plan.size + 1))
    used = channel < plan.channels
    for j, column in enumerate(columns):
        plgpu.store(weight.at[split, i * plan.size + j, channel], column.sum(0), mask=used)
    plgpu.store(bias.at[split, channel], total.sum(0), mask=used & (i == 0))


def _along(x: Any, halo: Any, corner: Array, i: Array, channel: Array, plan: Plan) -> Iterator[tuple[int, Array]]:
    """The values that row i of the kernel sees, column by column of the halo."""
    inside = corner < plan.halo_size
    for column in range(plan.run + plan.size - 1):
        row = plgpu.load(halo.at[corner + i * plan.reach + column], mask=inside, other=plan.rows)
        yield column, _rows(x, row, channel, plan)


def _fed(column: int, plan: Plan) -> Iterator[tuple[int, int]]:
    """The sites of a run that see this column of the halo, each with the column of the kernel through which it does."""
    return ((site, column - site) for site in range(plan.run) if 0 <= column - site < plan.size)


def _rows(x: Any, row: Array, channel: Array, plan: Plan) -> Array:
    """x at these rows and channels, 0 where there is none."""
    value = plgpu.load(x.at[row[:, None], channel[None]], mask=_mask(row, channel, plan), other=0.0)
    return value.astype(plan.wide)


def _vector(x: Any, channel: Array, plan: Plan) -> Array:
    """A vector (1, channels) of x."""
    return plgpu.load(x, mask=channel < plan.channels, other=0.0)[None]


def _mask(row: Array, channel: Array, plan: Plan) -> Array:
    there = (row < plan.rows)[:, None]
    return there if plan.channels % plan.tile.channels == 0 else there & (channel < plan.channels)[None]


def _run(width: int) -> int:
    """The sites of a run: as many as divide a row of a block, RUN at most."""
    return next(run for run in range(min(RUN, width), 0, -1) if width % run == 0)


def choose_tile(run: int, channels: int, itemsize: int, *, gradient: bool) -> Tile:
    """The tile for runs of this length; measured on an H200 with 128 to 1024 channels."""
    tiles = GRADIENT_TILES if gradient else CONV_TILES
    tile = tiles[pl.next_power_of_2(run)]
    widths = [width for width in (128, 64, 32) if width <= tile.channels]
    width = min(widths, key=lambda width: (pl.cdiv(channels, width) * width, -width))
    runs = tile.runs * tile.channels * 4 // (width * itemsize)
    return Tile(max(1, runs), width, tile.warps)
