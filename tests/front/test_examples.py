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


class Watched(nn.Module):
    """The example's model, and beside it `twinnext.fcmae` with the same weights; keeps the losses of both."""

    def __init__(self) -> None:
        super().__init__()
        self.theirs, self.ours = own_loop.MaskedAutoencoder(), tn.build(own_loop.OURS, "torch")
        self.theirs.load_state_dict(self.ours.state_dict())
        self.losses: list[tuple[float, float]] = []

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        loss: Tensor = self.theirs(images, mask)
        with torch.no_grad():
            expected = self.ours(images, mask, visible=own_loop.VISIBLE)["loss"]
        self.losses.append((loss.item(), expected.item()))
        return loss


def test_the_sparse_encoder_in_a_loop_of_ones_own_has_our_loss_bit_for_bit() -> None:
    watched = Watched()
    for _ in range(5):
        own_loop.train(watched, 1)
        watched.ours.load_state_dict(watched.theirs.state_dict())
    own_loop.train(watched, 1)
    found, expected = map(list, zip(*watched.losses, strict=True))
    assert found == expected
    assert len(set(found)) == 6
    with torch.no_grad():
        watched.theirs.encoder.get_submodule("stages.0.0").pwconv2.weight *= 2
    own_loop.train(watched, 1)
    assert watched.losses[-1][0] != watched.losses[-1][1]


@pytest.mark.parametrize("path", list(sources("examples")), ids=str)
def test_an_example_fits_on_a_screen_or_two(path: Path) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= 80
