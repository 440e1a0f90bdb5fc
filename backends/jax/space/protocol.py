"""The methods of a space, which spatial steps call."""

from typing import Protocol

from jax import Array


class Space(Protocol):
    """Where the values of x lie: constant through a stage. x is a plain array.

    Shapes of x: (N, H, W, C) in the dense space, (N, K * P * P, C) in the visible one.
    Removed sites count as 0 in every spatial step.
    """

    def grid(self, x: Array) -> Array:
        """x as (N, H, W, C), with exact zeros at removed sites."""

    def broadcast(self, values: Array) -> Array:
        """One value per image (N,), shaped to multiply x."""

    def patch_conv(self, x: Array, weight: Array, bias: Array) -> "tuple[Array, Space]":
        """Non-overlapping convolution by weight (k, k, in, out): the next stage's x and space."""

    def depthwise_conv(self, x: Array, weight: Array, bias: Array) -> Array:
        """Depthwise convolution by weight (k, k, 1, C) with zero padding."""

    def grn(self, x: Array, gamma: Array, beta: Array, eps: float, scope: str) -> Array:
        """GRN over the visible sites of an image (scope "image"), of the batch ("batch"), or the whole "grid"."""

    def fill(self, x: Array, token: Array) -> "tuple[Array, Space]":
        """x on the full grid with the token (C,) at removed sites, in the dense space without a mask."""

    def pool(self, x: Array) -> "tuple[Array, Space]":
        """The mean over the visible sites of each image (N, C), in the dense space without a mask."""
