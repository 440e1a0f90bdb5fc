"""FLOPs of a traced JAX program that XLA's count leaves out: it counts the body of a loop once."""

import math
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr

SUMS = {"reduce_sum", "reduce_max"}
ELEMENTWISE = {"add", "add_any", "sub", "mul", "div", "neg", "max", "min", "square", "select_n"}
"""One FLOP per element, as XLA counts; exponentials and roots are counted apart."""

PLATFORMS = ("cpu", "tpu")
"""In the order in which our calls of `lax.platform_dependent` name them, before the default."""


def repeats(jaxpr: Jaxpr, platform: str) -> float:
    """FLOPs of every pass through the loops of a program except the first."""
    total = 0.0
    for equation in jaxpr.eqns:
        inner = sum(repeats(body, platform) for body in _bodies(equation, platform))
        if equation.primitive.name == "scan":
            once = sum(flops(body, platform) for body in _bodies(equation, platform))
            inner += (equation.params["length"] - equation.params["unroll"]) * once  # XLA counts unrolled passes
        total += inner
    return total


def flops(jaxpr: Jaxpr, platform: str) -> float:
    """FLOPs of a program, each loop times its length; a multiply-add is two."""
    return sum(_own(equation) + _inside(equation, platform) for equation in jaxpr.eqns)


def _own(equation: Any) -> float:
    name, out = equation.primitive.name, equation.outvars[0].aval
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * out.size * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        return 2.0 * out.size * kernel.size / kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
    if name == "pallas_call":
        return float(equation.params["cost_estimate"].flops)
    if name in SUMS:
        return float(equation.invars[0].aval.size)
    return float(out.size) if name in ELEMENTWISE else 0.0


def _inside(equation: Any, platform: str) -> float:
    times = equation.params["length"] if equation.primitive.name == "scan" else 1
    return times * sum(flops(body, platform) for body in _bodies(equation, platform))


def _bodies(equation: Any, platform: str) -> list[Jaxpr]:
    """The programs inside an equation.

    `cond` is a choice by platform, the only choice in our models: the platform's own branch. A Pallas kernel
    states its own cost, so it has none.
    """
    if equation.primitive.name == "pallas_call":
        return []
    values = [part for value in equation.params.values() for part in (value if isinstance(value, tuple) else (value,))]
    bodies = [part.jaxpr if isinstance(part, ClosedJaxpr) else part for part in values]
    bodies = [body for body in bodies if isinstance(body, Jaxpr)]
    if equation.primitive.name == "cond":
        named = PLATFORMS[: len(bodies) - 1]
        return [bodies[named.index(platform) if platform in named else -1]]
    return bodies
