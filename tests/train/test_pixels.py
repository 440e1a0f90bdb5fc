"""Normalised pixels are the trainers' own, and random erasing is timm's."""

import random
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.train.images import pixels
from tests.train.timm_oracle import kolmogorov, module
from train.data.pixels import Erase, normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 64
DRAWN = 3000


def test_pixels_are_normalised_to_the_bits_of_the_trainers() -> None:
    images = np.stack([pixels(seed, 40, 56) for seed in range(3)])
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    expected = (torch.from_numpy(images).to(mean.dtype) / 255 - mean) / std
    np.testing.assert_array_equal(normalise(images, MEAN, STD), expected.numpy())


def test_one_mean_serves_all_channels() -> None:
    images = pixels(0)[None]
    np.testing.assert_array_equal(normalise(images, (0.5,), (0.25,)), normalise(images, (0.5,) * 3, (0.25,) * 3))


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    return module("random_erasing")


def _theirs(timm: ModuleType, count: int, drawn: int) -> list[list[tuple[int, int]]]:
    """Sides of the boxes of each image that timm erases."""
    random.seed(0)
    sides: list[list[tuple[int, int]]] = []
    timm._get_pixels = lambda per_pixel, rand_color, shape, **_: sides[-1].append(shape[1:]) or torch.zeros(())
    erase = timm.RandomErasing(0.25, mode="pixel", max_count=count, device="cpu")
    for _ in range(drawn):
        sides.append([])
        erase(torch.zeros(3, SIDE, SIDE))
    return [each for each in sides if each]


@pytest.mark.parametrize("count", [1, 3])
def test_boxes_are_distributed_as_timms(timm: ModuleType, count: int) -> None:
    erase = Erase(0, 0.25, "pixel", count)
    boxes = [found for position in range(DRAWN) if (found := erase.boxes(SIDE, SIDE, position))]
    ours, theirs = [[box[2:] for box in each] for each in boxes], _theirs(timm, count, DRAWN)
    assert abs(len(ours) - DRAWN / 4) < 5 * (DRAWN * 3 / 16) ** 0.5
    assert kolmogorov([len(each) for each in ours], [len(each) for each in theirs]) < 1.95
    for measure in (lambda h, w: h * w, lambda h, w: h / w):
        samples = [[measure(*box) for each in sample for box in each] for sample in (ours, theirs)]
        assert kolmogorov(*samples) < 1.95
    tops = [box[0] / (SIDE - box[2]) for each in boxes for box in each]
    assert kolmogorov(tops, np.random.default_rng(0).random(len(tops)).tolist()) < 1.95


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_only_the_box_changes_and_into_what_its_mode_says(mode: str) -> None:
    image = np.full((SIDE, SIDE, 3), 7, np.float32)
    erase = Erase(0, 1.0, mode)
    erase(image, 5)
    ((top, left, height, width),) = erase.boxes(SIDE, SIDE, 5)
    box = image[top : top + height, left : left + width].copy()
    image[top : top + height, left : left + width] = 7
    assert (image == 7).all()
    kinds = {"pixel": box.size, "rand": 3, "const": 1}
    assert len(np.unique(box)) == kinds[mode]
    if mode == "const":
        assert not box.any()


def test_erased_pixels_are_standard_normal_and_a_function_of_the_position() -> None:
    found = []
    for position in (0, 1, 1):
        image = np.full((256, 256, 3), 1e6, np.float32)
        Erase(3, 1.0)(image, position)
        found.append(image[image < 1e5])
    np.testing.assert_array_equal(found[1], found[2])
    assert not np.array_equal(found[0][:100], found[1][:100])
    noise = found[0].astype(np.float64)
    assert abs(noise.mean()) < 5 / noise.size**0.5
    assert abs(noise.var() - 1) < 5 * (2 / noise.size) ** 0.5


def test_without_luck_nothing_is_erased() -> None:
    image = np.ones((SIDE, SIDE, 3), np.float32)
    for position in range(50):
        Erase(0, 0.0)(image, position)
    assert (image == 1).all()
