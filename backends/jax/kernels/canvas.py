"""How TPUs convolve on visible patches, in Pallas: only visible sites are read from memory and written.

x is (N, S, C): the S = K * P * P visible sites of an image, patch by patch, row-major in each. On the
chip they lie on a canvas of zeros, one image and LANES channels at a time: site (row, column) in row
`row * width + column`, where `width` leaves one border between the end of a row and the next.
"""

from collections.abc import Callable
from functools import partial
from math import isqrt
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

LANES, SUBLANES = 128, 8
"""Channels and rows of a register; a row of 128 float32 can be loaded from wherever it begins, others only aligned."""

SITES = 1024
"""About as many as a program reads, of several images where these are smaller: each program costs a third of a microsecond."""

DEFAULT_VMEM = 16 << 20
"""What a kernel may use of the chip's memory without saying so; large images ask for more."""


def conv(x: Array, taps: Array, kept: Array, grid: tuple[int, int]) -> Array:
    """y (N, S, C) in the dtype of x, of taps (k, k, C) and the numbers (N, K) of patches kept of a grid."""
    plan = Plan.of(x, kept, grid, len(taps))
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return plan.call(_conv_kernel, x, [plan.sites(), plan.taps()], plan.sites(), shape)(plan.corners(kept), x, taps)


def weight_gradient(x: Array, grad: Array, kept: Array, grid: tuple[int, int], size: int) -> Array:
    """dw (k, k, C) in float32: at each offset, x there times grad, summed over sites."""
    plan = Plan.of(x, kept, grid, size)
    shape = jax.ShapeDtypeStruct((size, size, x.shape[-1]), jnp.float32)
    return plan.call(_gradient_kernel, x, [plan.sites(), plan.sites()], plan.taps(), shape)(plan.corners(kept), x, grad)


class Plan(NamedTuple):
    """How a call lies in memory."""

    shape: tuple[int, int, int]  # N S C
    visible: int  # K
    side: int  # P
    grid: tuple[int, int]  # G_h G_w
    size: int  # k

    @property
    def width(self) -> int:
        """Rows of the canvas from a site to the one below it."""
        return self.grid[1] * self.side + self.size // 2

    @property
    def canvas(self) -> int:
        """Rows of the canvas, and of a register past the last site."""
        height = self.grid[0] * self.side + 2 * (self.size // 2)
        return _up(height * self.width + self.size, SUBLANES) + SUBLANES

    @property
    def images(self) -> int:
        """How many a program reads."""
        return max(1, min(self.shape[0], SITES // self.shape[1]))

    @property
    def programs(self) -> tuple[int, int]:
        """Blocks of channels, blocks of images."""
        return pl.cdiv(self.shape[2], LANES), pl.cdiv(self.shape[0], self.images)

    def corners(self, kept: Array) -> Array:
        """Rows of the canvas where the windows of patches begin, one after the other: scalar memory pads a matrix."""
        row, column = kept // self.grid[1], kept % self.grid[1]
        return ((row * self.width + column) * self.side).astype(jnp.int32).reshape(-1)

    @classmethod
    def of(cls, x: Array, kept: Array, grid: tuple[int, int], size: int) -> "Plan":
        """That for x (N, S, C), K patches of a grid and a kernel of size x size."""
        images, sites, channels = x.shape
        visible = kept.shape[1]
        return cls((images, sites, channels), visible, isqrt(sites // visible), grid, size)

    def sites(self) -> pl.BlockSpec:
        """The part of x, y or their gradients that a program reads or writes."""
        return pl.BlockSpec((self.images, self.shape[1], LANES), lambda channels, images, _: (images, 0, channels))

    def taps(self) -> pl.BlockSpec:
        """The part of the weight."""
        return pl.BlockSpec((self.size, self.size, LANES), lambda channels, images, _: (0, 0, channels))

    def call(
        self, kernel: Any, x: Array, inputs: list[pl.BlockSpec], output: pl.BlockSpec, shape: jax.ShapeDtypeStruct
    ) -> Callable[..., Array]:
        """The kernel, over all programs; images are innermost, so that sums over them stay on the chip."""
        needed = 4 * LANES * (self.canvas + (1 + 4 * self.images) * _up(self.shape[1], SUBLANES))  # blocks come in pairs
        spec = pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=self.programs,
            in_specs=inputs,
            out_specs=output,
            scratch_shapes=[pltpu.VMEM((rows, LANES), jnp.float32) for rows in (self.canvas, self.shape[1])],
        )
        params = pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=max(DEFAULT_VMEM, needed + (4 << 20))
        )
        return pl.pallas_call(
            partial(kernel, self), grid_spec=spec, out_shape=shape, compiler_params=params, cost_estimate=self.cost(x.dtype.itemsize)
        )

    def cost(self, itemsize: int) -> pl.CostEstimate:
        """What XLA's `cost_analysis` repeats, since it cannot look inside.

        Multiply-adds at visible sites and bytes of x and of y, or grad: of whole registers and tiles, as they are.
        """
        images, sites, channels = self.shape
        lanes = _up(channels, LANES)
        taps = self.size**2 * lanes
        moved = 2 * images * _up(sites, SUBLANES) * lanes * itemsize + 4 * (taps + images * self.visible)
        return pl.CostEstimate(flops=2 * images * sites * taps, transcendentals=0, bytes_accessed=moved)


def _conv_kernel(plan: Plan, kept: Any, x: Any, taps: Any, y: Any, canvas: Any, sites: Any) -> None:
    """A block of images and of channels."""
    convolve = _conv_by_row if plan.side > 2 else _conv_by_site

    def image(n: Array, corners: Any) -> None:
        _lay_out(plan, corners, x, n, canvas, sites)
        _patches(plan, lambda patch, _: convolve(plan, canvas, taps, sites, corners(patch), patch * plan.side**2))
        y[n] = sites[...].astype(y.dtype)

    _images(plan, kept, image)


def _conv_by_row(plan: Plan, canvas: Any, taps: Any, sites: Any, corner: Array, first: Array) -> None:
    """Rows of P sites on the sublanes: each is read k times, and adds to the k rows that see it."""
    total = [jnp.zeros((plan.side, LANES), jnp.float32)] * plan.side
    for column in range(plan.size):
        for row in range(plan.side + plan.size - 1):
            values = canvas[pl.ds(corner + row * plan.width + column, plan.side)]
            for r in range(max(0, row - plan.size + 1), min(plan.side, row + 1)):
                total[r] += values * taps[row - r, pl.ds(column, 1)]
    for r, values in enumerate(total):
        sites[pl.ds(first + r * plan.side, plan.side)] = values


def _conv_by_site(plan: Plan, canvas: Any, taps: Any, sites: Any, corner: Array, first: Array) -> None:
    """Rows of k taps on the sublanes, which small patches would leave idle: a window's rows times taps, added up."""
    for site in range(plan.side**2):
        window = _window(plan, canvas, corner, site)
        total = sum(values * taps[i] for i, values in enumerate(window))
        sites[pl.ds(first + site, 1)] = total.sum(0, keepdims=True)


def _window(plan: Plan, canvas: Any, corner: Array, site: int) -> list[Array]:
    """The k rows (k, LANES) around a site of the patch whose window begins at `corner`."""
    start = corner + site // plan.side * plan.width + site % plan.side
    return [canvas[pl.ds(start + i * plan.width, plan.size)] for i in range(plan.size)]


def _gradient_kernel(plan: Plan, kept: Any, x: Any, grad: Any, taps: Any, canvas: Any, sites: Any) -> None:
    """A block of channels, images in turn: each site's window times the gradient there, added up."""

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        taps[...] = jnp.zeros_like(taps)

    def image(n: Array, corners: Any) -> None:
        _lay_out(plan, corners, x, n, canvas, sites)
        sites[...] = grad[n].astype(jnp.float32)

        def patch(patch: Array, total: list[Array]) -> list[Array]:
            for site in range(plan.side**2):
                slope = sites[pl.ds(patch * plan.side**2 + site, 1)]
                window = _window(plan, canvas, corners(patch), site)
                total = [rows + values * slope for rows, values in zip(total, window, strict=True)]
            return total

        for i, total in enumerate(_patches(plan, patch, [taps[i] for i in range(plan.size)])):
            taps[i] = total

    _images(plan, kept, image)


def _images(plan: Plan, kept: Any, image: Any) -> None:
    """Do `image(n, corners)` for each image of this program, of which the last may have fewer.

    corners(patch): the row of the canvas where the window of a visible patch begins.
    """
    first = pl.program_id(1) * plan.images

    def step(n: Array, _: None) -> None:
        image(n, lambda patch: kept[(first + n) * plan.visible + patch])

    lax.fori_loop(0, jnp.minimum(plan.images, plan.shape[0] - first), step, None)


def _patches(plan: Plan, patch: Any, start: Any = None) -> Any:
    """Do it for each visible patch, several at a time where patches are small."""
    return lax.fori_loop(0, plan.visible, patch, start, unroll=max(1, 16 // plan.side**2))


def _lay_out(plan: Plan, corners: Any, x: Any, n: Array, canvas: Any, sites: Any) -> None:
    """The visible sites of image n on the canvas, by way of `sites`."""
    inside = plan.size // 2 * (plan.width + 1)

    def put(patch: Array, _: None) -> None:
        for r in range(plan.side):
            row = sites[pl.ds((patch * plan.side + r) * plan.side, plan.side)]
            canvas[pl.ds(corners(patch) + inside + r * plan.width, plan.side)] = row

    canvas[...] = jnp.zeros_like(canvas)
    sites[...] = x[n].astype(jnp.float32)
    _patches(plan, put)


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit
