"""Mixup and cutmix: timm's arithmetic, its distributions, and pairs that no batch size can change."""

from functools import partial
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.train.timm_oracle import kolmogorov, module
from train.data.mixing import Blend, Mix, _box, blend_images, blend_targets, soft_targets

CLASSES, SMOOTHING = 7, 0.1
GROUP = 8
DRAWN = 3000


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    return module("mixup")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(GROUP, 20, 28, 3)).astype(np.float32)


@pytest.mark.parametrize("position", range(12))
def test_a_group_is_mixed_as_timm_mixes_a_batch(timm: ModuleType, images: np.ndarray, position: int) -> None:
    mix = Mix(0, GROUP, mixup=0.8, cutmix=1.0)
    positions = np.arange(GROUP) + position * GROUP
    labels = np.random.default_rng(position).integers(0, CLASSES, GROUP)
    ((_, (share, box)),) = mix.blends(positions, 20, 28)
    theirs = timm.Mixup(0.8, 1.0, label_smoothing=SMOOTHING, num_classes=CLASSES)
    theirs._params_per_batch = lambda: (share, box is not None)
    timm.cutmix_bbox_and_lam = lambda *_, **__: ((box[0], box[2], box[1], box[3]), share)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    pixels, targets = theirs(x, torch.from_numpy(labels))
    plain = soft_targets(labels, CLASSES, SMOOTHING)
    blends = mix.blends(positions, 20, 28)
    own = np.arange(GROUP)
    found = blend_images(images, own, own[::-1], blends)
    np.testing.assert_array_equal(found, pixels.numpy().transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(blend_targets(plain, plain[::-1], blends), targets.numpy())


def test_smoothed_targets_are_timms(timm: ModuleType) -> None:
    labels = np.arange(CLASSES)
    expected = timm.one_hot(torch.from_numpy(labels), CLASSES, 1 - SMOOTHING + SMOOTHING / CLASSES, SMOOTHING / CLASSES)
    np.testing.assert_array_equal(soft_targets(labels, CLASSES, SMOOTHING), expected.numpy())
    assert soft_targets(labels, CLASSES, 0.0).tolist() == np.eye(CLASSES).tolist()


def test_boxes_are_timms(timm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for own in (0.0, 0.3, 0.77, 0.999):
        for row, column in ((0, 0), (19, 27), (9, 3)):
            monkeypatch.setattr(
                np.random, "randint", partial(lambda centre, *_, **__: next(centre), iter((row, column)))
            )
            top, bottom, left, right = timm.rand_bbox((3, 20, 28), own)
            assert _box(own, 20, 28, row, column) == (top, left, bottom, right)


def test_a_share_is_what_the_box_leaves() -> None:
    for group in range(40):
        own, (top, left, bottom, right) = Mix(1, GROUP, 0, 1.0).blend(group, 20, 28)
        assert own == 1 - (bottom - top) * (right - left) / (20 * 28)
        assert 0 <= top <= bottom <= 20
        assert 0 <= left <= right <= 28


@pytest.mark.parametrize("shape", [0.3, 0.8, 1.0, 2.0])
def test_shares_follow_the_beta_distribution(shape: float) -> None:
    ours = [Mix(0, GROUP, shape, 0).blend(group, 32, 32).own for group in range(DRAWN)]
    assert kolmogorov(ours, np.random.default_rng(0).beta(shape, shape, DRAWN).tolist()) < 1.95


def test_switching_and_sparing_are_as_often_as_asked() -> None:
    mix = Mix(0, GROUP, 0.8, 1.0, prob=0.6, switch_prob=0.3)
    blends = [mix.blend(group, 32, 32) for group in range(DRAWN)]
    spared = sum(blend == Blend(1.0, None) for blend in blends)
    cut = sum(blend.box is not None for blend in blends)
    assert abs(spared - 0.4 * DRAWN) < 5 * (DRAWN * 0.24) ** 0.5
    assert abs(cut - 0.18 * DRAWN) < 5 * (DRAWN * 0.15) ** 0.5
    for alone, boxed in ((Mix(0, GROUP, 0.8, 0), False), (Mix(0, GROUP, 0, 1.0), True)):
        assert {alone.blend(group, 32, 32).box is not None for group in range(50)} == {boxed}


def test_partners_are_the_group_in_reverse() -> None:
    assert Mix(0, 4, 1, 1).partners(np.arange(2, 11)).tolist() == [1, 0, 7, 6, 5, 4, 11, 10, 9]


def test_a_batch_of_parts_of_groups_is_blended_group_by_group(images: np.ndarray) -> None:
    mix = Mix(0, 4, 0.8, 1.0)
    positions = np.arange(2, 10)
    blends = mix.blends(positions, 20, 28)
    assert [(rows.start, rows.stop) for rows, _ in blends] == [(0, 2), (2, 6), (6, 8)]
    assert [blend for _, blend in blends] == [mix.blend(group, 20, 28) for group in range(3)]
