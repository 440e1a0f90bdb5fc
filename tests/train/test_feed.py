"""Batches: functions of (seed, index) alone, full even if images are broken, the same with any workers."""

import time
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest

from backends.protocol import Batch
from tests.train.images import encoded, pixels, tree
from train.data import feed
from train.data.digits import Digits
from train.data.feed import Feed
from train.data.folder import Folder
from train.data.masks import Masks
from train.data.pipeline import prefetch
from train.data.shared_memory import ALIGNED, receive, send
from train.data.transforms import CropAndFlip
from train.errors import TrainError

BROKEN = {"c0/0.jpg": b"", "c1/2.jpg": encoded(pixels(3))[:400], "c2/1.jpg": b"not an image"}


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tree(tmp_path / "images", classes=3, each=5)


def make(root: Path, batch_size: int = 4, seed: int = 0, policy: str = "uniform") -> Feed:
    """A feed of 12 samples per epoch."""
    augment = CropAndFlip((16, 24), (0.2, 1.0), 0.5)
    return Feed(Folder(root), seed, 3, batch_size, 12, augment, Masks(seed, (2, 3), 2, policy))


def together(batches: list[tuple[Batch, list[str]]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([batch[name] for batch, _ in batches]) for name in ("images", "mask")}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name in ("images", "mask"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_batch_is_what_the_trainer_takes(images: Path) -> None:
    batch, broken = make(images)(0)
    assert batch["images"].shape == (4, 16, 24, 3)
    assert batch["images"].dtype == np.uint8
    assert batch["mask"].shape == (4, 2, 3)
    assert broken == []


def test_samples_depend_on_their_position_not_on_the_size_of_batches(images: Path) -> None:
    small, large = make(images, batch_size=2), make(images, batch_size=6)
    assert_same(together([small(index) for index in range(12)]), together([large(index) for index in range(4)]))


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_samples_of_a_batch(images: Path, processes: int) -> None:
    whole, part = make(images, batch_size=6), make(images, batch_size=6 // processes)
    shares = [feed.RankShard(part, rank, processes) for rank in range(processes)]
    assert_same(
        together([share(index) for index in range(4) for share in shares]), together(list(map(whole, range(4))))
    )


def test_seeds_draw_different_batches(images: Path) -> None:
    batches = [make(images, seed=seed)(0)[0] for seed in (0, 1)]
    assert not np.array_equal(batches[0]["images"], batches[1]["images"])
    assert not np.array_equal(batches[0]["mask"], batches[1]["mask"])


def test_an_epoch_shows_every_image_at_most_once_in_a_new_order(images: Path) -> None:
    orders = [feed.permutation(0, epoch, 15) for epoch in range(3)]
    assert all(sorted(order) == list(range(15)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_broken_images_are_replaced_and_named(images: Path) -> None:
    whole = [make(images)(index) for index in range(6)]
    for name, data in BROKEN.items():
        (images / name).write_bytes(data)
    damaged = [make(images)(index) for index in range(6)]
    named = {line.split(": ")[0] for _, broken in damaged for line in broken}
    assert named == {str(images / name) for name in BROKEN}
    for (before, _), (after, broken) in zip(whole, damaged, strict=True):
        assert after["images"].shape == before["images"].shape
        np.testing.assert_array_equal(after["mask"], before["mask"])
        assert np.array_equal(after["images"], before["images"]) == (not broken)


def test_a_vanished_file_is_a_broken_one(images: Path) -> None:
    source = make(images)
    (images / "c0/0.jpg").unlink()
    broken = [line for index in range(6) for line in source(index)[1]]
    assert set(broken) == {f"{images}/c0/0.jpg: No such file or directory"}


def test_a_folder_of_nothing_but_broken_images_is_one_line(images: Path) -> None:
    for file in images.rglob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(TrainError, match="15 images in a row are broken, the first is /"):
        make(images)(0)


@pytest.mark.parametrize(("workers", "kind"), [(1, "thread"), (3, "thread"), (2, "process")])
def test_any_workers_make_the_same_batches(images: Path, workers: int, kind: str) -> None:
    (images / "c0/0.jpg").write_bytes(b"")
    source = make(images, policy="importance")
    made = list(prefetch(source, 3, 9, workers, kind))
    expected = [source(index) for index in range(3, 9)]
    assert_same(together(made), together(expected))
    assert [broken for _, broken in made] == [broken for _, broken in expected]


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_the_error_of_a_worker_is_the_runs(images: Path, kind: str) -> None:
    for file in images.rglob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(TrainError, match="images in a row are broken"):
        list(prefetch(make(images), 0, 4, 2, kind))


class Fatal:
    """Ends its process."""

    def __call__(self, index: int) -> int:
        import os

        os._exit(3)


def test_a_dead_worker_is_one_line() -> None:
    with pytest.raises(TrainError, match="a data worker died"):
        list(prefetch(Fatal(), 0, 4, 2, "process"))


def test_the_digits_are_all_there() -> None:
    digits = Digits()
    images = np.stack([digits[index][0] for index in range(len(digits))])
    labels = [digits[index][1] for index in range(len(digits))]
    assert images.shape == (1797, 32, 32, 1)
    assert images.dtype == np.uint8
    assert images.min() == 0
    assert images.max() == 255
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


class Large:
    """Makes batches of 12 MB and records in a file how many."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        with self.log.open("a") as file:
            file.write(".")
        return {"images": np.full((1000, 3000), index, np.float32), "none": np.empty((0, 4)), "keep": np.arange(5)}


def test_processes_share_the_memory_of_their_batches(tmp_path: Path) -> None:
    made = prefetch(Large(tmp_path / "log"), 0, 50, 1, "process")
    batches = [next(made) for _ in range(3)]
    time.sleep(1)
    assert len((tmp_path / "log").read_text()) <= 5  # the worker waits for the reader
    for index, batch in enumerate(batches):  # each is its own memory, and may be written to
        assert (batch["images"] == index).all()
        assert batch["none"].shape == (0, 4)
        assert batch["keep"].tolist() == [0, 1, 2, 3, 4]
        batch["images"] += 1
        assert batch["images"].ctypes.data % ALIGNED == 0
    made.close()
    assert (batches[1]["images"] == 2).all()


@pytest.mark.parametrize("shared_memory", [True, False])
def test_values_travel_with_and_without_shared_memory(shared_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shared_memory:
        monkeypatch.delattr("os.memfd_create")
    value = {"images": np.arange(24.0).reshape(2, 3, 4), "odd": np.ones(3, np.uint8), "lines": ["a"]}
    reader, writer = Pipe()
    send(writer, (value, None))
    found, error = receive(reader)
    assert error is None
    assert found["lines"] == ["a"]
    for name in ("images", "odd"):
        np.testing.assert_array_equal(found[name], value[name])
        found[name] += 1
    writer.close()
    with pytest.raises((EOFError, OSError)):
        receive(reader)
    reader.close()
