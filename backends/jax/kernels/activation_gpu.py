"""Pointwise passes over the sites of images with sums, for CUDA GPUs, in Pallas, compiled by Triton; and a cheap Phi.

A program owns one image and some channels, and reads each value once. XLA's own fusions are bound by their
arithmetic: they contract no product with a sum, and divide in erf.
"""

import struct
from collections.abc import Callable, Sequence
from functools import partial, reduce
from math import e, log2, pi
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

TAIL = (
    -8.53594543e-7,
    3.7931226e-5,
    -7.08491832e-4,
    7.48397037e-3,
    -0.051551722,
    -0.461155266,
    -1.15011716,
    -1.0000757,
)
"""log2 Phi(-y) for y >= 0 as a polynomial, highest power first, by a weighted minimax fit: the relative error of Phi is
9e-5 up to y = 5 and 1.5e-4 up to y = 6, where bfloat16 rounds by 2e-3."""

DENSITY = (-0.5 * log2(e), 0.0, -0.5 * log2(2 * pi))
"""log2 of the density of the normal distribution."""

WARPS = 4096
"""Warps that fill a GPU."""

Exp2 = Callable[[Array, Sequence[float]], Array]
Values = Sequence[Array]
Result = tuple[Values, Values]
Function = Callable[[Exp2, Values, Values], Result]


class Tile(NamedTuple):
    """What one program computes at a time."""

    sites: int
    channels: int
    warps: int


def normal_cdf(x: Array, exp2: Exp2) -> Array:
    """Phi of float32 values, accurate enough for bfloat16."""
    tail = exp2(jnp.abs(x), TAIL)
    return jnp.where(x > 0, 1 - tail, tail)


def exp2(y: Array, polynomial: Sequence[float]) -> Array:
    """2^p(y), p by its coefficients, highest power first."""
    return jnp.exp2(reduce(lambda total, factor: total * y + factor, polynomial[1:], jnp.full_like(y, polynomial[0])))


def exp2_fused(y: Array, polynomial: Sequence[float]) -> Array:
    """The same for float32 in a kernel: XLA's Triton would round each product before it adds."""
    first, *others = (f"0f{struct.pack('>f', factor).hex()}" for factor in polynomial)
    steps = "".join(f"fma.rn.f32 p, p, $1, {factor}; " for factor in others)
    asm = f"{{ .reg .f32 p; mov.f32 p, {first}; {steps}ex2.approx.ftz.f32 $0, p; }}"
    shape = jax.ShapeDtypeStruct(y.shape, y.dtype)
    return plgpu.elementwise_inline_asm(asm, args=[y], constraints="=f,f", pack=1, result_shape_dtypes=[shape])[0]


def map_and_sum(function: Function, tiles: Values, vectors: Values) -> list[Array]:
    """Results (N, S, D), then sums over sites (N, D) in float32, of a pointwise function of tiles and vectors (N, D).

    function(exp2, tiles, vectors) -> (results, summands) has values in float32; results take the dtype of the
    tiles (N, S, D). A summand has to be 0 where all tiles are.
    """

    def plain(tiles: Values, vectors: Values) -> list[Array]:
        wide = [tile.astype(jnp.float32) for tile in tiles]
        results, summands = function(exp2, wide, [vector[:, None] for vector in vectors])
        return [result.astype(tiles[0].dtype) for result in results] + [summand.sum(1) for summand in summands]

    cuda = partial(map_and_sum_on_cuda, function)
    return lax.platform_dependent(list(tiles), list(vectors), cuda=cuda, default=plain)


def map_and_sum_on_cuda(function: Function, tiles: Values, vectors: Values) -> list[Array]:
    """The same by a kernel."""
    images, sites, channels = tiles[0].shape
    value = jax.ShapeDtypeStruct((1, 1), jnp.float32)
    results, sums = jax.eval_shape(partial(function, exp2), [value] * len(tiles), [value] * len(vectors))
    tile = choose_tile(images, sites, channels, sums=len(sums), results=len(results))
    call = pl.pallas_call(
        partial(
            _kernel,
            function=function,
            counts=(len(tiles), len(vectors), len(results)),
            shape=(images, sites, channels),
            tile=tile,
        ),
        grid=(images, pl.cdiv(channels, tile.channels)),
        out_shape=[
            *[jax.ShapeDtypeStruct((images * sites, channels), tiles[0].dtype) for _ in results],
            *[jax.ShapeDtypeStruct((images, channels), jnp.float32) for _ in sums],
        ],
        compiler_params=plgpu.CompilerParams(num_warps=tile.warps, num_stages=1),
    )
    found = call(*(tile.reshape(-1, channels) for tile in tiles), *vectors)
    return [one.reshape(tiles[0].shape) for one in found[: len(results)]] + list(found[len(results) :])


def _kernel(
    *refs: Any, function: Function, counts: tuple[int, int, int], shape: tuple[int, int, int], tile: Tile
) -> None:
    """One image and a block of channels."""
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    tiles, vectors, results, sums = (refs[i:j] for i, j in zip([0, *ends], [*ends, None], strict=True))
    image, channel = pl.program_id(0), pl.program_id(1) * tile.channels + jnp.arange(tile.channels, dtype=jnp.int32)
    used = channel < shape[2]
    given = [plgpu.load(vector.at[image, channel], mask=used, other=0.0)[None] for vector in vectors]

    def add(turn: Array, totals: list[Array]) -> list[Array]:
        site = turn * tile.sites + jnp.arange(tile.sites, dtype=jnp.int32)
        mask = (site < shape[1])[:, None] & used[None]
        at = (image * shape[1] + site)[:, None], channel[None]
        values = [plgpu.load(array.at[at], mask=mask, other=0.0).astype(jnp.float32) for array in tiles]
        found, summands = function(exp2_fused, values, given)
        for result, value in zip(results, found, strict=True):
            plgpu.store(result.at[at], value.astype(result.dtype), mask=mask)
        return [total + summand for total, summand in zip(totals, summands, strict=True)]

    start = [jnp.zeros((tile.sites, tile.channels), jnp.float32)] * len(sums)
    for out, total in zip(sums, lax.fori_loop(0, pl.cdiv(shape[1], tile.sites), add, start), strict=True):
        plgpu.store(out.at[image, channel], total.sum(0), mask=used)


def choose_tile(images: int, sites: int, channels: int, *, sums: int, results: int) -> Tile:
    """As many warps per program as fill the GPU; more for a pass that sums and writes. Measured on an H200."""
    programs = images * pl.cdiv(channels, 128)
    least = 4 if sums and results and sites > 32 else 1
    warps = min(8, max(least, pl.next_power_of_2(pl.cdiv(WARPS, programs))))
    return Tile(warps * (8 if sites > 1000 else 4), 128, warps)
