"""Engine "visible": visible patches only, and where they lie. K is static, so every shape is.

Pointwise steps, norms and 2x2 convolutions stay inside the patches. Only the depthwise
convolution looks outside, through a halo: each patch with a border of its neighbours' sites.
"""

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from backends.torch.depthwise import halo_conv
from backends.torch.norm import at_least_float32, grn
from backends.torch.space.dense import DenseSpace
from backends.torch.space.patches import Halo, Layout
from backends.torch.space.protocol import Space


@dataclass(frozen=True, eq=False)
class VisibleSpace:
    """The visible patches that `layout` lists, and no other site.

    x is (N, K, P, P, C).
    """

    layout: Layout
    kernel_size: int  # of the depthwise convolutions
    kernels: bool  # whether the Triton kernels compute these
    halo: Halo | None = None  # for this stage's P; None before the stem

    def grid(self, x: Tensor) -> Tensor:
        return self.layout.scatter(x, x.new_zeros(()))

    def broadcast(self, values: Tensor) -> Tensor:
        return values.view(-1, 1, 1, 1, 1)

    def patch_conv(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Space]:
        n, k, side, _, channels = x.shape
        out, _, size, _ = weight.shape
        cells = side // size
        windows = x.view(n, k, cells, size, cells, size, channels).transpose(3, 4)
        matrix = weight.permute(0, 2, 3, 1).reshape(out, -1)  # out, (kh kw in)
        halo = self.layout.halo(cells, self.kernel_size // 2)
        return F.linear(windows.flatten(4), matrix, bias), replace(self, halo=halo)

    def depthwise_conv(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        assert self.halo is not None
        return halo_conv(x, weight, bias, self.halo, self.kernels)

    def grn(self, x: Tensor, gamma: Tensor, beta: Tensor, eps: float, scope: str) -> Tensor:
        axes = (0, 1, 2, 3) if scope == "batch" else (1, 2, 3)
        return grn(x, axes, gamma, beta, eps)

    def fill(self, x: Tensor, token: Tensor) -> tuple[Tensor, Space]:
        return self.layout.scatter(x, token), DenseSpace()

    def pool(self, x: Tensor) -> tuple[Tensor, Space]:
        return at_least_float32(x).mean((1, 2, 3)).to(x.dtype), DenseSpace()


def enter(
    images: Tensor, mask: Tensor, visible: int, *, kernel_size: int, kernels: bool
) -> tuple[Tensor, VisibleSpace]:
    """The visible patches of images (N, H, W, C) and their space; mask (N, G_h, G_w), 1 = removed, keeps `visible`."""
    layout = Layout.of(mask, visible)
    return layout.gather(images), VisibleSpace(layout, kernel_size, kernels)
