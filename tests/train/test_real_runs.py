"""Whole runs with the real trainers: exact after an interruption, in one framework and across both."""

import json
from pathlib import Path

import pytest

import backends
from convert.containers.run import RunCheckpoint
from parity_tests.tolerances import TRAJECTORY, assert_all_close, assert_same
from tests.train.images import tree
from train.__main__ import main
from train.checkpoints import store

TINY = (
    "--parity_check False --picture_freq 4 --model none --depths 1 1 --dims 8 16 --decoder_embed_dim 8 --patch_size 4"
    " --input_size 16 --batch_size 8 --epochs 4 --warmup_epochs 1 --blr 0.01 --print_freq 1"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"), classes=2, each=20)


def run(images: Path, run_dir: Path, *flags: str) -> RunCheckpoint:
    """The last checkpoint of a run of five updates per epoch, 20 in all."""
    assert main([*TINY.split(), "--data_path", str(images), "--output_dir", str(run_dir), *flags]) == 0
    found = store.newest(run_dir / "checkpoints", print)
    assert found is not None
    return found


@pytest.mark.parametrize("name", backends.installed())
def test_an_interrupted_run_ends_bit_identical(images: Path, tmp_path: Path, name: str) -> None:
    flags = ("--backend", name)
    whole = run(images, tmp_path / "whole", *flags)
    run(images, tmp_path / "cut", *flags, "--stop_at_step", "7")
    cut = run(images, tmp_path / "cut", *flags)
    assert whole.step == cut.step == whole.state.t == cut.state.t == 20
    for part in ("params", "mu", "nu"):
        assert_same(getattr(cut.state, part), getattr(whole.state, part), part)


@pytest.mark.skipif(len(backends.installed()) < 2, reason="needs both frameworks")
@pytest.mark.parametrize("names", [("torch", "jax"), ("jax", "torch")])
def test_a_run_may_change_framework_on_the_way(images: Path, tmp_path: Path, names: tuple[str, str]) -> None:
    flags = ("--precision", "float64", "--update_freq", "2", "--batch_size", "4")
    whole = run(images, tmp_path / "whole", "--backend", names[0], *flags)
    run(images, tmp_path / "mixed", "--backend", names[0], *flags, "--stop_at_step", "7")
    mixed = run(images, tmp_path / "mixed", "--backend", names[1], *flags)
    assert mixed.meta["backend"] == names[1]
    for part in ("params", "mu", "nu"):
        assert_all_close(getattr(mixed.state, part), getattr(whole.state, part), TRAJECTORY["float64"], part)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_loss_on_the_digits_falls(tmp_path: Path, precision: str) -> None:
    words = "--backend torch --parity_check 0 --save_ckpt 0 --picture_freq 0 --max_steps 80 --print_freq 10"
    sizes = "--dims 8 16 32 --warmup_epochs 1 --precision"
    assert main([*words.split(), *sizes.split(), precision, "--output_dir", str(tmp_path)]) == 0
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--engine sparse", "engine: 'sparse' is unknown"),
        ("--device nowhere", "device: torch cannot use 'nowhere' here"),
    ],
)
def test_what_only_the_framework_knows_is_one_line_too(
    images: Path, tmp_path: Path, flags: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY.split(), "--backend", "torch", "--data_path", str(images), "--output_dir", str(tmp_path)]
    assert main([*words, *flags.split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"train: {line}")
    assert said.count("\n") == 1
