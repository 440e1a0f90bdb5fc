"""The run around the trainer: exact when interrupted, strict about what it resumes, honest about its data."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.train import fake
from tests.train.fake import assert_same_run, last
from tests.train.images import tree
from train.__main__ import main
from train.config import cli
from train.errors import TrainError

FOUR_EPOCHS = ("--batch_size", "206", "--epochs", "4", "--save_ckpt_freq", "1", "--print_freq", "3")  # 7 updates each


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"), classes=2, each=42)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    fake.train(images, run_dir)
    return run_dir


@pytest.mark.parametrize("stop", [1, 7, 12])
def test_a_run_cut_short_ends_as_if_it_had_not_been(images: Path, tmp_path: Path, whole: Path, stop: int) -> None:
    fake.train(images, tmp_path, "--stop_at_step", str(stop))
    assert last(tmp_path).step == stop
    fake.train(images, tmp_path)
    assert_same_run(tmp_path, whole)


def test_metrics_of_an_interrupted_run_are_those_of_a_whole_one(images: Path, tmp_path: Path, whole: Path) -> None:
    fake.train(images, tmp_path, "--stop_at_step", "14")
    with (tmp_path / "metrics.jsonl").open("a") as file:  # what a run killed past its checkpoint leaves
        file.write('{"step": 15, "epoch": 2.1, "loss": 9}\n{"step": 18, "epo')
    fake.train(images, tmp_path)
    assert fake.metrics(tmp_path) == fake.metrics(whole)
    assert [line["step"] for line in fake.metrics(whole)] == [3, 6, 7, 9, 12, 14, 15, 18, 21, 24, 27, 28]


def test_accumulation_keeps_the_samples_of_an_update(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[np.ndarray]] = {"whole": [], "split": []}
    step = fake.Trainer.step
    for name, flags in (("whole", ()), ("split", ("--batch_size", "3", "--update_freq", "4"))):

        def noted(self: fake.Trainer, batches: Any, lr: float, name: str = name) -> Any:
            seen[name].append(np.concatenate([batch["images"] for batch in batches]))
            return step(self, batches, lr)

        monkeypatch.setattr(fake.Trainer, "step", noted)
        fake.train(images, tmp_path / name, *flags)
    np.testing.assert_array_equal(seen["whole"], seen["split"])
    assert [line["lr"] for line in fake.metrics(tmp_path / "split")] == [
        line["lr"] for line in fake.metrics(tmp_path / "whole")
    ]


def test_damage_to_the_newest_checkpoint_costs_one_checkpoint(
    images: Path, tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.train(images, tmp_path, "--stop_at_step", "14")
    (tmp_path / "checkpoints" / "step-00000014" / "mu.safetensors").write_bytes(b"")
    fake.train(images, tmp_path)
    assert_same_run(tmp_path, whole)
    said = capsys.readouterr().out
    assert "step-00000014/mu.safetensors: 0 bytes" in said
    assert "resumed from" in said
    assert "step-00000007" in said


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--seed 1", "--seed 1: the run began with 0"),
        (
            "--batch_size 14",
            "--batch_size x --update_freq: 14 images per update, the run began with 12, as --batch_size 12"
            " --update_freq 1 would be",
        ),
        ("--dims 8", "another model (encoder.dims [4] there, [8] here)"),
        ("--mask_ratio 0.5", "another model (mask_ratio 0.6 there, 0.5 here)"),
        ("--mask_rounding ceil", "another model (mask_rounding floor there, ceil here)"),
    ],
)
def test_another_run_is_refused_in_one_line(images: Path, whole: Path, flags: str, line: str) -> None:
    with pytest.raises(TrainError, match=re.escape(line)) as error:
        fake.train(images, whole, *flags.split())
    assert "another --output_dir" in str(error.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda folder: (folder / "0.jpg").unlink(), "the data has 83 images now, the run began with 84"),
        (lambda folder: (folder / "0.jpg").rename(folder / "00.jpg"), "the data is not what the run began with"),
    ],
)
def test_other_data_is_refused_in_one_line(tmp_path: Path, change: Callable[[Path], None], line: str) -> None:
    images = tree(tmp_path / "images", classes=2, each=42)
    fake.train(images, tmp_path / "run", "--stop_at_step", "1")
    change(images / "c0")
    with pytest.raises(TrainError, match=line):
        fake.train(images, tmp_path / "run")


def test_a_changed_schedule_is_reported_and_taken(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.train(images, tmp_path, "--stop_at_step", "7")
    fake.train(images, tmp_path, "--epochs", "2", "--num_workers", "1")
    said = capsys.readouterr().out
    assert "note: --epochs is 2, the run began with 4" in said
    assert "num_workers" not in said
    assert last(tmp_path).step == 14


def test_resume_takes_a_checkpoint_from_elsewhere(images: Path, tmp_path: Path, whole: Path) -> None:
    fake.train(images, tmp_path / "first", "--stop_at_step", "14")
    elsewhere = tmp_path / "first" / "checkpoints" / "step-00000007"
    fake.train(images, tmp_path / "second", "--resume", str(elsewhere))
    assert_same_run(tmp_path / "second", whole)
    with pytest.raises(TrainError, match=r"--resume .*absent: no such file or folder"):
        fake.train(images, tmp_path / "third", "--resume", str(tmp_path / "absent"))


def test_without_auto_resume_a_run_starts_again(images: Path, tmp_path: Path, whole: Path) -> None:
    fake.train(images, tmp_path, "--stop_at_step", "7")
    fake.train(images, tmp_path, "--auto_resume", "0")
    assert_same_run(tmp_path, whole)
    assert fake.metrics(tmp_path) == fake.metrics(whole)


def test_start_epoch_skips_what_lies_before(images: Path, tmp_path: Path, whole: Path) -> None:
    fake.train(images, tmp_path, "--start_epoch", "3")
    assert fake.metrics(tmp_path)[0]["step"] == 24
    assert fake.metrics(tmp_path)[0]["lr"] == fake.metrics(whole)[9]["lr"]
    assert last(tmp_path).state.t == 7


def test_a_finished_run_says_so(images: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake.train(images, whole)
    assert f"nothing to do: {whole} is at step 28 of 28" in capsys.readouterr().out


def test_the_run_directory_tells_what_was_run(whole: Path) -> None:
    config = cli.parse(["--config", str(whole / "config.toml")])
    assert (config.optimizer.epochs, config.optimizer.batch_size, config.run.output_dir) == (4, 12, str(whole))
    assert (whole / "config.toml").read_text().startswith("# python 3.")
    assert len(list((whole / "checkpoints").iterdir())) == 3


def test_tensorboard_reads_the_metrics(images: Path, tmp_path: Path) -> None:
    fake.train(images, tmp_path, "--stop_at_step", "14", "--picture_freq", "1")
    fake.train(images, tmp_path, "--picture_freq", "1")
    events = EventAccumulator(str(tmp_path / "tb"), size_guidance={"scalars": 0, "images": 0}).Reload()
    lines = fake.metrics(tmp_path)
    assert [event.step for event in events.Scalars("train/loss")] == [line["step"] for line in lines]
    assert [np.float32(event.value) for event in events.Scalars("train/loss")] == [np.float32(x["loss"]) for x in lines]
    assert [event.step for event in events.Images("reconstruction")] == [7, 14, 21, 28]
    assert [file.name for file in sorted((tmp_path / "pictures").iterdir())][-1] == "step-00000028.png"


def test_broken_images_are_named_once_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tree(tmp_path / "images", classes=2, each=12)
    (images / "c0" / "3.jpg").write_bytes(b"")
    fake.train(images, tmp_path / "run", "--epochs", "3", "--picture_freq", "1")
    assert capsys.readouterr().out.count(f"skipped, 1 so far: {images}/c0/3.jpg: an empty file") == 1
    assert sum(line["skipped"] for line in fake.metrics(tmp_path / "run")) == 3


@pytest.mark.parametrize("place", ["file/run", "/proc/run"])
def test_a_run_directory_that_cannot_be_written_is_one_line(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--backend", "torch", "--output_dir", str(tmp_path / place)]) == 2
    line = capsys.readouterr().err
    assert line.startswith("train: --output_dir ")
    assert "cannot be written" in line
    assert line.count("\n") == 1


def test_an_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("train.run.train", interrupted)
    assert main(["--backend", "torch"]) == 130
    assert capsys.readouterr().err.startswith("train: interrupted")
