"""The one norm whose gradient needs care."""

import jax.numpy as jnp
from jax import Array


def safe_norm(x: Array, axes: tuple[int, ...]) -> Array:
    """sqrt(sum of x^2 over axes) in float32 at least, axes kept; the gradient at 0 is 0.

    Two `where`s: the outer one alone would still pass sqrt's infinite slope on, times 0.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    total = jnp.square(x.astype(wide)).sum(axes, keepdims=True)
    positive = total > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, total, 1)), 0)
