"""The engines: how the space of an image is stored, one file each, behind five verbs.

A sites object holds the activations `x` and knows where they lie. Its verbs are
`patch_conv`, `depthwise_conv`, `spatial_norm`, `fill` and `pool`; `map` applies a
function of the last axis, `plus` adds other sites, `grid` shows all as (N, H, W, C).
"""

from typing import Any

from jax import Array

from backends.jax.space.dense import Masked
from backends.jax.space.visible import Visible

ENGINES = ("masked", "visible")


def enter(engine: str, images: Array, mask: Array | None, patch: int, visible: int) -> Any:
    """Images (N, H, W, C) as the sites of an engine; mask (N, G_h, G_w), 1 = removed, or none.

    visible: K, the number of patches that the mask keeps of every image.
    """
    if engine == "visible":
        return Visible.enter(images, mask, patch, visible)
    return Masked.enter(images, mask, patch)
