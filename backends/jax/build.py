"""From spec to flax modules: total over the vocabulary."""

from typing import assert_never

from flax import nnx

import spec
from backends.jax import steps


def make(step: spec.Step) -> nnx.Module | nnx.Param:
    """The module of a step, its parameters not yet set; FillRemoved is its bare token."""
    match step:
        case spec.PatchConv():
            return steps.PatchConv(step)
        case spec.DepthwiseConv():
            return steps.DepthwiseConv(step)
        case spec.LayerNorm():
            return steps.LayerNorm(step)
        case spec.Dense():
            return steps.Dense(step)
        case spec.Gelu():
            return steps.Gelu(step)
        case spec.GRN():
            return steps.GRN(step)
        case spec.Residual():
            return steps.Residual(step, make)
        case spec.FillRemoved():
            return steps.token(step)
        case spec.GlobalPool():
            return steps.GlobalPool(step)
        case _:
            assert_never(step)
