"""How a call of the depthwise kernels is cut into programs, and how their memory is laid out."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

LANES, SUBLANES = 128, 8
"""Channels and rows of a register; a row of 128 float32 can be loaded from wherever it begins, others only aligned."""

SITES = 1024
"""Sites per program, about; small images share one, since starting a program takes time."""

VMEM, SPARE = 16 << 20, 4 << 20
"""What a kernel may use of the chip's memory without saying so, and what it uses beside its blocks; both in bytes."""


class Plan(NamedTuple):
    """How a call is cut into programs, and how its sites lie on the canvas."""

    images: int  # N
    channels: int  # C
    visible: int  # K
    side: int  # P
    grid: tuple[int, int]  # G_h G_w
    size: int  # k
    itemsize: int  # bytes of an entry of x

    @property
    def area(self) -> int:
        """The sites of a patch."""
        return self.side**2

    @property
    def rows(self) -> int:
        """The visible sites of an image, S."""
        return self.visible * self.area

    @property
    def block(self) -> int:
        """The images of a program; the last may have fewer."""
        return max(1, min(self.images, SITES // self.rows))

    @property
    def width(self) -> int:
        """Rows of the canvas from a site to the one below it."""
        return self.grid[1] * self.side + self.size // 2

    @property
    def canvas(self) -> int:
        """Rows of the canvas, and of a register past the last window."""
        height = self.grid[0] * self.side + 2 * (self.size // 2)
        return _up(height * self.width + self.size, SUBLANES) + SUBLANES

    def corners(self, kept: Array) -> Array:
        """The rows of the canvas where the windows of patches begin; (N * K,), since scalar memory pads matrices."""
        row, column = kept // self.grid[1], kept % self.grid[1]
        return ((row * self.width + column) * self.side).astype(jnp.int32).reshape(-1)

    def sites(self) -> pl.BlockSpec:
        """The part of x, y or their gradients that a program sees."""
        return pl.BlockSpec((self.block, self.rows, LANES), lambda channels, images, _: (images, 0, channels))

    def taps(self) -> pl.BlockSpec:
        """The part of the weight."""
        return pl.BlockSpec((self.size, self.size, LANES), lambda channels, images, _: (0, 0, channels))

    def call(
        self, kernel: Any, inputs: list[pl.BlockSpec], output: pl.BlockSpec, result: jax.ShapeDtypeStruct
    ) -> Callable[..., Array]:
        """The kernel, run on every block; images are innermost, so that sums over them stay on the chip."""
        spec = pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(pl.cdiv(self.channels, LANES), pl.cdiv(self.images, self.block)),
            in_specs=inputs,
            out_specs=output,
            scratch_shapes=[pltpu.VMEM((rows, LANES), jnp.float32) for rows in (self.canvas, self.rows)],
        )
        two = 2 * self.block * _up(self.rows, SUBLANES) * self.itemsize  # x and y, or x and grad
        scratch = 4 * (self.canvas + self.rows)
        memory = LANES * (scratch + 2 * two) + SPARE  # double buffering
        params = pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=max(VMEM, memory))
        function = partial(kernel, self)
        return pl.pallas_call(
            function, grid_spec=spec, out_shape=result, compiler_params=params, cost_estimate=self.cost()
        )

    def cost(self) -> pl.CostEstimate:
        """The cost that XLA's `cost_analysis` reports for the kernel, which it cannot see into.

        Multiply-adds at visible sites; bytes of x and y, or x and grad, of the taps and of the corners. Channels and
        sites are those of whole tiles, which is what is computed and moved.
        """
        lanes = _up(self.channels, LANES)
        taps = self.size**2 * lanes
        sites = 2 * self.images * _up(self.rows, SUBLANES) * lanes * self.itemsize
        return pl.CostEstimate(
            flops=2 * self.images * self.rows * taps,
            transcendentals=0,
            bytes_accessed=sites + 4 * (taps + self.images * self.visible),
        )


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit
