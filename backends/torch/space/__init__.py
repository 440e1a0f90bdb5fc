"""The engines: how the space of an image is stored, one file each, behind five verbs.

A sites object holds the activations `x` and knows where they lie. Its verbs are
`patch_conv`, `depthwise_conv`, `spatial_norm`, `fill` and `pool`; `map` applies a
function of the last axis, `plus` adds other sites, `grid` shows all as (N, H, W, C).
`only_visible` says that x (N, ..., C) holds visible sites and no other.
"""

import importlib.util
from typing import Any

from torch import Tensor

from backends.torch.space.dense import Masked
from backends.torch.space.visible import Visible

WITNESS = ("minkowski",) if importlib.util.find_spec("MinkowskiEngine") else ()
ENGINES = ("masked", "visible", *WITNESS)


def enter(engine: str, images: Tensor, mask: Tensor | None, patch: int, visible: int) -> Any:
    """Images (N, H, W, C) as the sites of an engine; mask (N, G_h, G_w), 1 = removed, or none.

    visible: K, the number of patches that the mask keeps of every image.
    """
    if engine == "visible":
        return Visible.enter(images, mask, patch, visible)
    if engine == "minkowski":
        from backends.torch.space.minkowski import Minkowski  # optional, and slow to import

        return Minkowski.enter(images, mask, patch)
    return Masked.enter(images, mask, patch)
