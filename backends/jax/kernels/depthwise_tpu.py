"""The depthwise convolution on visible patches for TPUs, in Pallas: only visible sites leave memory or enter it.

x is (N, S, C): the S = K * P * P visible sites of an image, patch by patch, row-major in each. On the
chip they lie on a canvas of zeros, one image and LANES channels at a time: site (row, column) in row
`row * width + column`, where `width` leaves one border between the end of a row and the next. XLA does
not partition a kernel over devices, so it is called in `shard_map`, as `update.py` does.
"""

from collections.abc import Callable
from math import isqrt
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from backends.jax.kernels.plan import LANES, Plan

if TYPE_CHECKING:
    from backends.jax.space.patches import Neighbours

Corner = Callable[[Array], Array]
"""The row of the canvas where the windows of an image's patch, one of its K, begin."""


def conv(x: Array, weight: Array, where: "Neighbours") -> Array:
    """Depthwise convolution of x (N, K * P * P, C) with weight (k, k, 1, C), in the dtype of x.

    Accumulates in float32. FLOPs and bytes in XLA's `cost_analysis` are those of `Plan.cost`.
    """
    plan = _plan(x, where, len(weight))
    call = plan.call(_conv_kernel, [plan.sites(), plan.taps()], plan.sites(), jax.ShapeDtypeStruct(x.shape, x.dtype))
    return call(plan.corners(where.kept), x, weight[:, :, 0].astype(jnp.float32))


def weight_gradient(x: Array, grad: Array, where: "Neighbours", size: int) -> Array:
    """dw (k, k, 1, C) in the dtype of x: at each offset, x there times grad, summed over sites in float32."""
    plan = _plan(x, where, size)
    dw = jax.ShapeDtypeStruct((size, size, x.shape[-1]), jnp.float32)
    call = plan.call(_gradient_kernel, [plan.sites(), plan.sites()], plan.taps(), dw)
    return call(plan.corners(where.kept), x, grad)[:, :, None].astype(x.dtype)


def _plan(x: Array, where: "Neighbours", size: int) -> Plan:
    (images, sites, channels), visible = x.shape, where.kept.shape[1]
    _, rows, columns = where.slot.shape
    return Plan(images, channels, visible, isqrt(sites // visible), (rows, columns), size, x.dtype.itemsize)


def _conv_kernel(plan: Plan, corners: Any, x: Any, taps: Any, y: Any, canvas: Any, scratch: Any) -> None:
    """y of a block of images and channels."""
    convolve = _conv_by_row if plan.side > 2 else _conv_by_site

    def image(n: Array, corner: Corner) -> None:
        _lay_out(plan, corner, x, n, canvas, scratch)
        _patches(plan, lambda patch, _: convolve(plan, canvas, taps, scratch, corner(patch), patch * plan.area))
        y[n] = scratch[...].astype(y.dtype)

    _images(plan, corners, image)


def _conv_by_row(plan: Plan, canvas: Any, taps: Any, scratch: Any, corner: Array, first: Array) -> None:
    """A row of P sites lies on the sublanes: read at k shifts, each adding to the k rows of the patch that see it."""
    total = [jnp.zeros((plan.side, LANES), jnp.float32)] * plan.side
    for row in range(plan.side + plan.size - 1):
        for column in range(plan.size):
            values = canvas[pl.ds(corner + row * plan.width + column, plan.side)]
            for r in range(max(0, row - plan.size + 1), min(plan.side, row + 1)):
                total[r] += values * taps[row - r, pl.ds(column, 1)]
    for r, values in enumerate(total):
        scratch[pl.ds(first + r * plan.side, plan.side)] = values


def _conv_by_site(plan: Plan, canvas: Any, taps: Any, scratch: Any, corner: Array, first: Array) -> None:
    """A row of k taps lies on the sublanes, most of which small patches would leave idle; they are added up last."""
    for site in range(plan.area):
        total = sum(values * taps[i] for i, values in enumerate(_window(plan, canvas, corner, site)))
        scratch[pl.ds(first + site, 1)] = total.sum(0, keepdims=True)


def _gradient_kernel(plan: Plan, corners: Any, x: Any, grad: Any, taps: Any, canvas: Any, scratch: Any) -> None:
    """taps, dw of a block of channels, one image after the other: each site's window times the gradient there."""

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        taps[...] = jnp.zeros_like(taps)

    def image(n: Array, corner: Corner) -> None:
        _lay_out(plan, corner, x, n, canvas, scratch)
        scratch[...] = grad[n].astype(jnp.float32)

        def add(patch: Array, total: list[Array]) -> list[Array]:
            for site in range(plan.area):
                slope = scratch[pl.ds(patch * plan.area + site, 1)]
                window = _window(plan, canvas, corner(patch), site)
                total = [rows + values * slope for rows, values in zip(total, window, strict=True)]
            return total

        for i, total in enumerate(_patches(plan, add, [taps[i] for i in range(plan.size)])):
            taps[i] = total

    _images(plan, corners, image)


def _window(plan: Plan, canvas: Any, corner: Array, site: int) -> list[Array]:
    """The k rows (k, LANES) around a site of the patch whose windows begin at `corner`."""
    start = corner + site // plan.side * plan.width + site % plan.side
    return [canvas[pl.ds(start + i * plan.width, plan.size)] for i in range(plan.size)]


def _lay_out(plan: Plan, corner: Corner, x: Any, n: Array, canvas: Any, scratch: Any) -> None:
    """The visible sites of image n on the canvas, through `scratch`: bfloat16 cannot be sliced at every row."""
    inside = plan.size // 2 * (plan.width + 1)

    def put(patch: Array, _: None) -> None:
        for r in range(plan.side):
            row = scratch[pl.ds((patch * plan.side + r) * plan.side, plan.side)]
            canvas[pl.ds(corner(patch) + inside + r * plan.width, plan.side)] = row

    canvas[...] = jnp.zeros_like(canvas)
    scratch[...] = x[n].astype(jnp.float32)
    _patches(plan, put)


def _images(plan: Plan, corners: Any, image: Callable[[Array, Corner], None]) -> None:
    """Run the body for each image of this program."""
    first = pl.program_id(1) * plan.block

    def step(n: Array, _: None) -> None:
        image(n, lambda patch: corners[(first + n) * plan.visible + patch])

    lax.fori_loop(0, jnp.minimum(plan.block, plan.images - first), step, None)


def _patches(plan: Plan, patch: Callable[[Array, Any], Any], start: Any = None) -> Any:
    """Run the body for each visible patch, several small ones at once, to hide the latency of sums."""
    return lax.fori_loop(0, plan.visible, patch, start, unroll=max(1, 16 // plan.area))
