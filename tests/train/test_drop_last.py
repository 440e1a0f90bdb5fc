"""--drop_last False: the last images of an epoch make an update of their own, the mean over them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import backends
from convert.containers.run import RunCheckpoint
from parity_tests.tolerances import TRAJECTORY, assert_all_close
from tests.train import fake
from tests.train.images import tree
from train.__main__ import main
from train.data.feed import Feed, RankShard
from train.data.folder import Folder
from train.data.masks import Masks
from train.data.transforms import CropAndFlip

IMAGES, UPDATE = 14, 8
TINY = (
    "--parity_check False --picture_freq 0 --model none --depths 1 --dims 8 --decoder_embed_dim 8 --patch_size 4"
    " --input_size 16 --precision float64 --warmup_epochs 0 --lr 0.01 --print_freq 1"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"), classes=2, each=IMAGES // 2)


def make(root: Path, batch_size: int) -> Feed:
    """A feed of two updates per epoch: eight images, and six."""
    augment = CropAndFlip((16, 16), (0.2, 1.0), 0.5)
    return Feed(Folder(root), 0, 3, batch_size, 2 * UPDATE, augment, Masks(0, (4, 4), 6), UPDATE)


def rows(feeds: Sequence[RankShard], count: int) -> dict[str, np.ndarray]:
    made = [feed(index)[0] for index in range(count) for feed in feeds]
    return {name: np.concatenate([batch[name] for batch in made]) for name in made[0]}


@pytest.mark.parametrize(("batch_size", "processes"), [(8, 1), (1, 1), (2, 2), (4, 2)])
def test_every_image_of_an_epoch_is_used_once(images: Path, batch_size: int, processes: int) -> None:
    feed = make(images, batch_size)
    found = rows([RankShard(feed, rank, processes) for rank in range(processes)], 4 * UPDATE // batch_size // processes)
    weights = found["weights"].reshape(4, UPDATE)
    assert (weights.sum(1) == UPDATE).all()
    assert ((weights > 0).sum(1) == [8, 6, 8, 6]).all()
    positions = np.concatenate([feed.positions(index) for index in range(4 * UPDATE // batch_size)])
    assert positions[weights.ravel() > 0].tolist() == list(range(2 * IMAGES))
    for epoch in range(2):
        keys = {feed.key(position) for position in range(epoch * IMAGES, (epoch + 1) * IMAGES)}
        assert len(keys) == IMAGES
    whole = rows([RankShard(make(images, UPDATE), 0, 1)], 4)
    for name, column in whole.items():
        np.testing.assert_array_equal(found[name], column)


def run(images: Path, run_dir: Path, *flags: str) -> RunCheckpoint:
    assert main([*TINY.split(), "--data_path", str(images), "--output_dir", str(run_dir), *flags]) == 0
    return fake.last(run_dir)


def assert_same(found: RunCheckpoint, expected: RunCheckpoint) -> None:
    for part in ("params", "mu", "nu"):
        assert_all_close(getattr(found.state, part), getattr(expected.state, part), TRAJECTORY["float64"], part)


@pytest.mark.parametrize("backend", backends.installed())
@pytest.mark.parametrize("size", ["--batch_size 20", "--batch_size 4 --update_freq 5"])
def test_a_partial_update_is_that_of_a_batch_of_its_size(
    images: Path, tmp_path: Path, backend: str, size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All images are one update of 14: as a batch of 14, and as a batch of 20 of which six rows are padding."""
    flags = ("--backend", backend, "--epochs", "3")
    expected = run(images, tmp_path / "whole", *flags, "--batch_size", str(IMAGES))
    found = run(images, tmp_path / "partial", *flags, *size.split(), "--drop_last", "False")
    assert "3 updates of 20 images, the last of an epoch of 14, " in capsys.readouterr().out
    assert found.step == expected.step == 3
    assert_same(found, expected)


def test_both_frameworks_continue_each_others_run_at_a_partial_update(images: Path, tmp_path: Path) -> None:
    flags = ("--batch_size", "4", "--update_freq", "2", "--epochs", "3", "--drop_last", "False")
    found = run(images, tmp_path / "torch", "--backend", "torch", *flags)
    assert_same(run(images, tmp_path / "jax", "--backend", "jax", *flags), found)
    for stop, backend in (("1", "jax"), ("2", "torch"), ("6", "jax")):  # the second is partial
        mixed = run(images, tmp_path / "mixed", "--backend", backend, *flags, "--stop_at_step", stop)
    assert mixed.step == found.step == 6
    assert_same(mixed, found)


def test_a_run_cut_at_a_partial_update_ends_as_if_it_had_not_been(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--drop_last", "False")
    fake.train(images, tmp_path / "whole", *flags)
    assert fake.last(tmp_path / "whole").step == 8  # four epochs of 12 and of two
    for stop in ("1", "2", "3"):
        fake.train(images, tmp_path / "cut", *flags, "--stop_at_step", stop)
    fake.train(images, tmp_path / "cut", *flags)
    fake.assert_same_run(tmp_path / "cut", tmp_path / "whole")
    fake.train(images, tmp_path / "dropped")
    words = [*fake.QUICK.split(), "--data_path", str(images), "--output_dir", str(tmp_path / "dropped")]
    assert fake.last(tmp_path / "dropped").step == 4
    assert main([*words, *flags]) == 2
    assert "train: --drop_last False: the run began with True; give the same again" in capsys.readouterr().err


def test_padding_is_refused_where_it_would_be_summed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--drop_last", "False", "--grn_scope", "batch"]) == 2
    assert capsys.readouterr().err.startswith("train: --drop_last False: the last batch is padded, and --grn_scope")
