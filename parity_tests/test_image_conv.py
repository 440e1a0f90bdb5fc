"""The depthwise convolution of whole images on a CPU in torch: the library's function, its gradients and theirs."""

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from backends.torch.depthwise import image_conv
from parity_tests import tolerances

BOUND = tolerances.GRADIENT["float64"] * tolerances.EPS["float64"]


def library(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    found = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=3, groups=len(weight))
    return found.permute(0, 2, 3, 1)


def inputs(shape: tuple[int, ...]) -> list[Tensor]:
    """x, weight, bias."""
    rng, channels = torch.Generator().manual_seed(0), shape[-1]
    shapes = (shape, (channels, 1, 7, 7), (channels,))
    return [torch.randn(each, generator=rng, dtype=torch.float64, requires_grad=True) for each in shapes]


@pytest.mark.parametrize("shape", [(2, 7, 5, 4), (1, 1, 1, 3), (3, 1, 4, 2)], ids=str)
def test_the_gradients_are_those_of_the_library(shape: tuple[int, ...]) -> None:
    args = inputs(shape)
    dy = torch.randn(shape, dtype=torch.float64)
    found, expected = (torch.autograd.grad(conv(*args), args, dy) for conv in (image_conv, library))
    for name, ours, theirs in zip(("x", "weight", "bias"), found, expected, strict=True):
        tolerances.assert_close(ours.numpy(), theirs.numpy(), BOUND, name)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, for forward derivatives
def test_higher_and_forward_derivatives_are_those_of_finite_differences() -> None:
    args = inputs((2, 2, 3, 2))
    assert torch.autograd.gradcheck(image_conv, args, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(image_conv, args)


def test_vmap_goes_through_the_gradient() -> None:
    x, weight, bias = (each.detach() for each in inputs((3, 4, 4, 2)))
    per_image = vmap(grad(lambda w, one: image_conv(one[None], w, bias).square().sum()), (None, 0))(weight, x)
    whole = grad(lambda w: image_conv(x, w, bias).square().sum())(weight)
    tolerances.assert_close(per_image.sum(0).numpy(), whole.numpy(), BOUND, "weight")
