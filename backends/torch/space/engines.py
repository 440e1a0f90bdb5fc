"""The engines: by name, how the space of a batch is stored."""

import importlib.util

from torch import Tensor

from backends.torch.space import dense, visible
from backends.torch.space.protocol import Space

REFERENCE = ("minkowski",) if importlib.util.find_spec("MinkowskiEngine") else ()
ENGINES = ("masked", "visible", *REFERENCE)


def enter(
    engine: str, images: Tensor, mask: Tensor | None, *, patch: int, kept: int | None, kernel_size: int, kernels: bool
) -> tuple[Tensor, Space]:
    """Images (N, H, W, C) as x in the space of an engine; mask (N, G_h, G_w), 1 = removed, or None.

    patch: pixels along a patch. kept: K, the number of patches that the mask keeps of every image, for "visible".
    kernel_size: of the depthwise convolutions. kernels: whether Triton computes them in "visible".
    """
    if engine == "visible":
        assert kept is not None
        if mask is None:
            mask = images.new_zeros(len(images), images.shape[1] // patch, images.shape[2] // patch)
        return visible.enter(images, mask, kept, kernel_size=kernel_size, kernels=kernels)
    if engine == "minkowski":
        from backends.torch.space import minkowski  # optional, and slow to import

        return minkowski.enter(images, mask, patch)
    return dense.enter(images, mask, patch)
