"""Engine "masked": the full grid and the sites to keep; the plain model when nothing is masked."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch.depthwise import image_conv, padded_conv
from backends.torch.norm import at_least_float32, grn, respond, safe_norm
from backends.torch.space.protocol import Space

LARGE = 32 * 32
"""Sites of an image from which on the library's own gradients are as fast on a CPU: measured."""


@dataclass(frozen=True, eq=False)
class DenseSpace:
    """x is (N, H, W, C). Removed sites hold anything between spatial steps, which clear them first."""

    keep: Tensor | None = None  # N H W 1; None: every site is visible

    def grid(self, x: Tensor) -> Tensor:
        """By `where`, not by a product, so that inf and NaN cannot pass."""
        return x if self.keep is None else torch.where(self.keep, x, 0)

    def broadcast(self, values: Tensor) -> Tensor:
        return values.view(-1, 1, 1, 1)

    def patch_conv(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Space]:
        stride = weight.shape[-1]
        keep = None if self.keep is None else self.keep[:, ::stride, ::stride]
        y = F.conv2d(self.grid(x).permute(0, 3, 1, 2), weight, bias, stride=stride).permute(0, 2, 3, 1)
        return y, DenseSpace(keep)

    def depthwise_conv(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if self.keep is None and x.shape[1] * x.shape[2] < LARGE and _trains_on_cpu(weight):
            return image_conv(x, weight, bias)
        return padded_conv(self.grid(x), weight, bias)

    def grn(self, x: Tensor, gamma: Tensor, beta: Tensor, eps: float, scope: str) -> Tensor:
        axes = (0, 1, 2) if scope == "batch" else (1, 2)
        if self.keep is None or scope == "grid":
            return grn(x, axes, gamma, beta, eps)
        return respond(x, safe_norm(self.grid(x), axes), gamma, beta, eps)

    def fill(self, x: Tensor, token: Tensor) -> tuple[Tensor, Space]:
        return x if self.keep is None else torch.where(self.keep, x, token), DenseSpace()

    def pool(self, x: Tensor) -> tuple[Tensor, Space]:
        total = at_least_float32(self.grid(x)).sum((1, 2))
        count = x.shape[1] * x.shape[2] if self.keep is None else self.keep.sum((1, 2))
        return (total / count).to(x.dtype), DenseSpace()


def enter(images: Tensor, mask: Tensor | None, patch: int) -> tuple[Tensor, DenseSpace]:
    """Images (N, H, W, C) and their space; mask (N, G_h, G_w), 1 = removed, or None."""
    if mask is None:
        return images, DenseSpace()
    keep = (mask == 0).repeat_interleave(patch, 1).repeat_interleave(patch, 2)
    return images, DenseSpace(keep[..., None])


def _trains_on_cpu(weight: Tensor) -> bool:
    """Whether its gradient will be asked for, on a CPU, by eager steps."""
    trains = weight.requires_grad and torch.is_grad_enabled()
    return trains and weight.device.type == "cpu" and not torch.compiler.is_compiling()
