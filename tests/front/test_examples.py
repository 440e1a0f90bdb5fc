"""The examples do what they say: segmentation learns in both frameworks, and a loop of one's own has our losses."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import twinnext as tn
from examples import own_loop, segment_jax, segment_torch
from tests.project.tree import ROOT, sources

LEARNT = 0.55
"""Mean intersection over union after 60 steps; 0.63 was seen in both, 0.5 is every digit called the same."""


def test_segmentation_in_a_torch_loop() -> None:
    assert segment_torch.train(60) > LEARNT


def test_segmentation_in_an_optax_loop() -> None:
    assert segment_jax.train(60) > LEARNT


class Ours(nn.Module):
    """`twinnext.fcmae` as a model of the loop: (images, mask) -> loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tn.build(own_loop.OURS, "torch")

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        loss: Tensor = self.net(images, mask, visible=own_loop.VISIBLE)["loss"]
        return loss


def test_the_sparse_encoder_in_a_loop_of_ones_own_has_the_same_losses_bit_for_bit() -> None:
    ours, theirs = Ours(), own_loop.MaskedAutoencoder()
    theirs.load_state_dict(ours.net.state_dict())
    losses = own_loop.train(theirs, 5)
    assert losses == own_loop.train(ours, 5)
    assert len(set(losses)) == 5
    with torch.no_grad():
        theirs.encoder.get_submodule("stages.0.0").pwconv2.bias += 2**-10
    assert own_loop.train(theirs, 1) != own_loop.train(ours, 1)


@pytest.mark.parametrize("path", list(sources("examples")), ids=str)
def test_an_example_fits_on_a_screen_or_two(path: Path) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= 80
