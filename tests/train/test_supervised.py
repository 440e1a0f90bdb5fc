"""Batches with labels: independent of the batch size, every image evaluated once, crops as published."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backends.rng import Stream
from tests.train.images import pixels, tree
from train.data.drop_path import keep_paths
from train.data.feed import read
from train.data.folder import Folder
from train.data.mixing import Mix, soft_targets
from train.data.pixels import Erase, normalise
from train.data.randaugment import RandAugment
from train.data.supervised import CropAndAugment, EvalBatches, SupervisedFeed, eval_crop
from train.data.transforms import CropAndFlip, Draws

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RATES = (0.0, 0.25, 0.5)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tree(tmp_path / "images", classes=3, each=5)


@pytest.fixture
def feed(images: Path) -> SupervisedFeed:
    """All that a recipe names: 12 samples per epoch, mixed by eights, batches of four."""
    augment = CropAndAugment(CropAndFlip((16, 24), (0.08, 1.0), 0.5), RandAugment.parse("rand-m9-mstd0.5-inc1", MEAN))
    mix = Mix(0, 8, 0.8, 1.0)
    return SupervisedFeed(Folder(images), 0, 3, 4, 12, augment, 3, 0.1, RATES, MEAN, STD, Erase(0, 0.5), mix)


def columns(feed: SupervisedFeed, batches: int) -> dict[str, np.ndarray]:
    made = [feed(index)[0] for index in range(batches)]
    return {name: np.concatenate([batch[name] for batch in made]) for name in made[0]}


@pytest.mark.parametrize("size", [2, 6, 8, 12])
def test_mixed_samples_do_not_depend_on_the_size_of_batches(feed: SupervisedFeed, size: int) -> None:
    expected, found = columns(feed, 6), columns(replace(feed, batch_size=size), 24 // size)
    assert expected.keys() == {"images", "targets", "keep_paths"}
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column)


def test_a_batch_is_what_the_trainer_takes(feed: SupervisedFeed) -> None:
    batch, broken = feed(0)
    assert (batch["images"].shape, batch["images"].dtype) == ((4, 16, 24, 3), np.float32)
    assert (batch["targets"].shape, batch["targets"].dtype) == ((4, 3), np.float32)
    assert (batch["keep_paths"].shape, batch["keep_paths"].dtype) == ((4, 3), np.uint8)
    assert abs(batch["targets"].sum(1) - 1).max() < 2**-20
    assert broken == []


def test_without_erasing_and_mixing_images_stay_bytes(feed: SupervisedFeed) -> None:
    plain = replace(feed, erase=None, mix=None, rates=(0.0, 0.0))
    batch, _ = plain(1)
    _, labels, _ = plain.samples(plain.positions(1))
    assert batch["images"].dtype == np.uint8
    assert batch.keys() == {"images", "targets"}
    np.testing.assert_array_equal(batch["targets"], soft_targets(labels, 3, 0.1))


def test_erasing_comes_after_normalising_and_before_mixing(feed: SupervisedFeed) -> None:
    plain, erased = replace(feed, erase=None, mix=None), replace(feed, mix=None)
    before = normalise(plain(0)[0]["images"], MEAN, STD)
    for image, position in zip(before, range(4), strict=True):
        Erase(0, 0.5)(image, position)
    np.testing.assert_array_equal(erased(0)[0]["images"], before)
    unmixed = replace(feed, mix=replace(feed.mix, prob=0.0))
    np.testing.assert_array_equal(unmixed(0)[0]["images"], before)


def test_the_order_is_crop_flip_then_policy(feed: SupervisedFeed) -> None:
    draws = Draws(0, Stream.AUGMENT, 3)
    image = pixels(0)
    expected = feed.augment.policy(feed.augment.crop(image, draws), draws)
    np.testing.assert_array_equal(feed.augment(image, Draws(0, Stream.AUGMENT, 3)), expected)


def test_paths_are_dropped_at_their_rates() -> None:
    kept = keep_paths(0, np.arange(4000), RATES)
    for found, rate in zip(kept.mean(0), RATES, strict=True):
        assert abs(found - (1 - rate)) <= 5 * (rate * (1 - rate) / 4000) ** 0.5
    np.testing.assert_array_equal(keep_paths(0, np.arange(7, 9), RATES), kept[7:9])
    assert abs(np.corrcoef(kept[:, 1], kept[:, 2])[0, 1]) < 5 / 4000**0.5


def test_every_image_is_evaluated_once(images: Path) -> None:
    views = EvalBatches(Folder(images), (2, 0, 1), 3, (16, 24), 0.875, 4)
    made = [views(index) for index in range(len(views))]
    labels = np.concatenate([batch["labels"] for batch, _ in made])
    assert labels.tolist() == [2] * 5 + [0] * 5 + [1] * 5 + [-1]
    assert {batch["images"].shape for batch, _ in made} == {(4, 16, 24, 3)}
    image, _ = read(Folder(images), 11, 3)
    np.testing.assert_array_equal(made[2][0]["images"][3], eval_crop(image, (16, 24), 0.875))
    (images / "c1/2.jpg").write_bytes(b"")
    batch, broken = views(1)
    assert batch["labels"].tolist() == [2, 0, 0, -1]
    assert [line.split(": ")[0] for line in broken] == [f"{images}/c1/2.jpg"]


@pytest.mark.parametrize(("height", "width"), [(300, 400), (400, 300), (256, 256), (100, 333)])
def test_the_evaluation_crop_is_the_published_one(height: int, width: int) -> None:
    image = pixels(1, height, width)
    short = int(224 / 0.875)
    sides = (int(short * width / height), short) if height <= width else (short, int(short * height / width))
    resized = Image.fromarray(image).resize(sides, Image.Resampling.BICUBIC)
    left, top = round((sides[0] - 224) / 2), round((sides[1] - 224) / 2)
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)))
    np.testing.assert_array_equal(eval_crop(image, (224, 224), 0.875), expected)


def test_large_sizes_are_warped() -> None:
    image = pixels(1, 300, 400)
    expected = np.asarray(Image.fromarray(image).resize((384, 384), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(eval_crop(image, (384, 384), 0.875), expected)


@pytest.mark.parametrize("size", [(96, 32), (32, 96)])
def test_other_shapes_are_covered(size: tuple[int, int]) -> None:
    for height, width in ((40, 60), (60, 40), (97, 33)):
        assert eval_crop(pixels(1, height, width), size, 0.9).shape == (*size, 3)
