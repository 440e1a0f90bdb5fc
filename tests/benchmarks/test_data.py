"""The data benchmark: synthetic photographs, a baseline that does the same work, and its table."""

import numpy as np
import pytest

from benchmarks import data
from benchmarks.photographs import Photographs, jpeg, photograph
from train.data.pixels import normalise


@pytest.fixture(scope="module")
def source() -> Photographs:
    return Photographs.make(40, 90, 120)


def test_synthetic_jpegs_have_the_size_of_photographs() -> None:
    size = np.mean([len(jpeg(photograph(seed, 400, 500))) for seed in range(3)])
    assert 100e3 < size < 120e3


def test_the_baseline_makes_the_batches_of_pre_training(source: Photographs) -> None:
    feed = data.pretraining(source, 8)
    ours, plain = feed(2)[0], data.Plain(feed)(2)[0]
    np.testing.assert_array_equal(normalise(ours["images"], data.MEAN, data.STD), plain["images"])
    np.testing.assert_array_equal(ours["mask"], plain["mask"])


@pytest.mark.parametrize("index", range(3))  # mixed and cut ones
def test_the_baseline_makes_the_batches_of_fine_tuning(source: Photographs, index: int) -> None:
    feed = data.finetuning(source, 2 * data.GROUP)
    ours, plain = feed(index)[0], data.Plain(feed)(index)[0]
    for name in ("images", "targets"):
        np.testing.assert_array_equal(ours[name], plain[name])


def test_every_way_has_a_row(source: Photographs) -> None:
    ways = [data.Speed(task, what, kind, 1, [100.0, 300.0, 200.0]) for task, what, kind in ROWS]
    text = data.table(ways, source)
    assert "pre-training, twinnext 1 thread 200 100 300 1.00x" in " ".join(text.split())
    assert "pre-training of convnextv2_base on one h200: at most" in text
    assert data.rate(lambda index: ({}, []), "thread", 2, 8, 2) > 0


ROWS = [(task, what, "thread") for task in ("pre-training", "fine-tuning") for what in ("plain Pillow", "twinnext")]
