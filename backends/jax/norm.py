"""The one norm whose gradient needs care."""

import jax.numpy as jnp
from jax import Array


def safe_norm(x: Array, axes: tuple[int, ...]) -> Array:
    """sqrt(sum of x^2 over axes), axes kept; the gradient at 0 is 0, where sqrt's own would be NaN."""
    total = jnp.square(x).sum(axes, keepdims=True)
    positive = total > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, total, 1)), 0)
