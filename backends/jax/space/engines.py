"""The engines: by name, how the space of a batch is stored."""

import jax.numpy as jnp
from jax import Array

from backends.jax.kernels import Kernels
from backends.jax.space import dense, visible
from backends.jax.space.protocol import Space

ENGINES = ("masked", "visible")


def enter(
    engine: str, images: Array, mask: Array | None, *, patch: int, kept: int | None, kernel_size: int, kernels: Kernels
) -> tuple[Array, Space]:
    """Images (N, H, W, C) as x in the space of an engine; mask (N, G_h, G_w), 1 = removed, or None.

    patch: pixels along a patch. kept: K, the number of patches that the mask keeps of every image, for "visible".
    kernel_size: of the depthwise convolutions. kernels: the platform whose Pallas kernels compute them; None: none.
    """
    if engine == "visible":
        assert kept is not None
        if mask is None:
            mask = jnp.zeros((len(images), images.shape[1] // patch, images.shape[2] // patch))
        return visible.enter(images, mask, kept, kernel_size=kernel_size, kernels=kernels)
    x, space = dense.enter(images, mask, patch)
    return x, space._replace(kernels=kernels)
