"""The methods of a space, which spatial steps call."""

from typing import Protocol

from torch import Tensor


class Space(Protocol):
    """Where the values of x lie: constant through a stage. x is a plain array.

    Shapes of x: (N, H, W, C) in the dense space, (N, K, P, P, C) in the visible one.
    Removed sites count as 0 in every spatial step.
    """

    def grid(self, x: Tensor) -> Tensor:
        """x as (N, H, W, C), with exact zeros at removed sites."""

    def broadcast(self, values: Tensor) -> Tensor:
        """One value per image (N,), shaped to multiply x."""

    def patch_conv(self, x: Tensor, weight: Tensor, bias: Tensor) -> "tuple[Tensor, Space]":
        """Non-overlapping convolution by weight (out, in, k, k): the next stage's x and space."""

    def depthwise_conv(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Depthwise convolution by weight (C, 1, k, k) with zero padding."""

    def grn(self, x: Tensor, gamma: Tensor, beta: Tensor, eps: float, scope: str) -> Tensor:
        """GRN over the visible sites of an image (scope "image"), of the batch ("batch"), or the whole "grid"."""

    def fill(self, x: Tensor, token: Tensor) -> "tuple[Tensor, Space]":
        """x on the full grid with the token (C,) at removed sites, in the dense space without a mask."""

    def pool(self, x: Tensor) -> "tuple[Tensor, Space]":
        """The mean over the visible sites of each image (N, C), in the dense space without a mask."""
