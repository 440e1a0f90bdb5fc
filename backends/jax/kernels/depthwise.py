"""The depthwise convolution on visible patches for TPUs, in Pallas: only visible sites leave or enter HBM.

x is (N, S, C): the S = K * P * P visible sites of an image, patch by patch, row-major in each.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

LANES = 128
ROWS = 1024


class Plan(NamedTuple):
    visible: int
    side: int
    rows: int
    columns: int
    size: int

    @property
    def border(self):
        return self.size // 2

    @property
    def width(self):
        return self.columns * self.side + self.border

    @property
    def canvas(self):
        return -(-((self.rows * self.side + 2 * self.border) * self.width + self.border + 8) // 8) * 8


def conv(x, weight, where, interpret=False):
    return _call(x, weight, where, interpret)


def _call(x, weight, where, interpret):
    n, s, c = x.shape
    kk = where.kept.shape[1]
    side = int((s // kk) ** 0.5)
    k = weight.shape[0]
    plan = Plan(kk, side, where.slot.shape[1], where.slot.shape[2], k)
    nb = max(1, min(n, ROWS // s))
    spec = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=1,
        grid=(pl.cdiv(c, LANES), pl.cdiv(n, nb)),
        in_specs=[
            pl.BlockSpec((nb, s, LANES), lambda ch, im, kept: (im, 0, ch)),
            pl.BlockSpec((k, k, LANES), lambda ch, im, kept: (0, 0, ch)),
        ],
        out_specs=pl.BlockSpec((nb, s, LANES), lambda ch, im, kept: (im, 0, ch)),
        scratch_shapes=[pltpu.VMEM((plan.canvas, LANES), jnp.float32), pltpu.VMEM((s, LANES), jnp.float32)],
    )
    return pl.pallas_call(
        partial(_kernel, plan, n),
        grid_spec=spec,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=64 << 20),
        interpret=interpret,
    )(where.kept.astype(jnp.int32).reshape(-1), x, weight.reshape(k, k, c))


def _kernel(plan, images, kept, x, weight, y, canvas, sites):
    nb = x.shape[0]
    first = pl.program_id(1) * nb
    p, k, width = plan.side, plan.size, plan.width
    taps = [weight[i].astype(jnp.float32) for i in range(k)]

    def image(n, _):
        canvas[...] = jnp.zeros_like(canvas)
        sites[...] = x[n].astype(jnp.float32)

        def corner(v):
            patch = kept[(first + n) * plan.visible + v]
            return lax.div(patch, plan.columns) * (p * width) + lax.rem(patch, plan.columns) * p

        def put(v, _):
            at = corner(v) + plan.border * (width + 1)
            for r in range(p):
                canvas[pl.ds(at + r * width, p)] = sites[pl.ds((v * p + r) * p, p)]

        lax.fori_loop(0, plan.visible, put, None)

        def patch(v, _):
            at = corner(v)

            def site(s):
                start = at + (s // p) * width + s % p
                total = sum(canvas[pl.ds(start + i * width, k)] * taps[i] for i in range(k))
                sites[pl.ds(v * p * p + s, 1)] = total.sum(0, keepdims=True)

            for s in range(p * p):
                site(s)

        lax.fori_loop(0, plan.visible, patch, None)
        y[n] = sites[...].astype(y.dtype)

    lax.fori_loop(0, jnp.minimum(nb, images - first), image, None)
