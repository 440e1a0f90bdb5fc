"""Fine-tuning with the real trainers: exact after an interruption, and judged alike by either framework."""

import re
from pathlib import Path

import numpy as np
import pytest

import backends
from backends.protocol import State
from parity_tests.tolerances import assert_same
from tests.train.fake import metrics
from tests.train.images import tree
from train import checkpoint, cli
from train.__main__ import main
from train.finetune import Finetuning
from train.loop import _unmoved

WORDS = (
    "--task finetune --model none --depths 1 1 --dims 8 12 --patch_size 8 --input_size 16 --batch_size 8 --epochs 3"
    " --warmup_epochs 1 --lr 3e-3 --print_freq 1 --mixup 0.8 --cutmix 1.0 --mix_group 8 --drop_path 0.2 --layer_decay 0.9"
    " --head_init_scale 1 --model_ema True --model_ema_decay 0.8 --model_ema_eval True"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    tree(root / "train", classes=3, each=14)
    tree(root / "val", classes=3, each=7)
    return root


def run(images: Path, run_dir: Path, *flags: str) -> checkpoint.Checkpoint:
    """The last checkpoint of a run of five updates an epoch, 15 in all."""
    assert main([*WORDS.split(), "--data_path", str(images), "--output_dir", str(run_dir), *flags]) == 0
    found = checkpoint.newest(run_dir / "checkpoints", print)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    run(images, run_dir)
    return run_dir


def test_an_interrupted_run_ends_bit_identical(images: Path, whole: Path, tmp_path: Path) -> None:
    expected = checkpoint.newest(whole / "checkpoints", print)
    run(images, tmp_path, "--stop_at_step", "7")
    found = run(images, tmp_path, "--batch_size", "4", "--update_freq", "2", "--finetune", "absent")
    assert (found.step, found.state.t) == (15, 15)
    assert metrics(tmp_path)[-1]["step"] == 15
    again = run(images, tmp_path / "again", "--stop_at_step", "7")
    assert again.step == 7
    again = run(images, tmp_path / "again")
    for part in ("params", "mu", "nu", "ema"):
        assert_same(getattr(again.state, part), getattr(expected.state, part), part)


@pytest.mark.parametrize("backend", backends.installed())
def test_a_finished_run_is_judged_as_at_its_end(
    images: Path, whole: Path, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"--task eval --finetune {whole} --data_path {images} --input_size 16 --batch_size 8 --model_ema_eval True"
    assert main([*words.split(), "--backend", backend]) == 0
    told = dict(re.findall(r"(\w+) ([\d.]+)(?:, |$)", capsys.readouterr().out.splitlines()[-1]))
    last = metrics(whole)[-1]
    for name in ("acc1", "acc5", "val_loss", "acc1_ema", "acc5_ema", "val_loss_ema"):
        assert told[name] == (f"{last[name]:.4f}" if "loss" in name else f"{last[name]:.2f}")


@pytest.mark.parametrize("backend", backends.installed())
def test_an_average_starts_where_the_parameters_do_and_goes_its_own_way(images: Path, backend: str) -> None:
    task = Finetuning(cli.parse([*WORDS.split(), "--data_path", str(images)]))
    trainer = backends.load(backend).Trainer(task.model, task.optimizer, device="cpu")
    first = task.first_arrays()
    kept = {name: array.copy() for name, array in first.items()}
    state: State = _unmoved(first)
    trainer.restore(state)
    trainer.step([task.feed(5)(0)[0]], 0.01)
    after = trainer.export()
    assert_same(first, kept, "what the state was made of")
    for name, array in after.params.items():
        expected = kept[name] + np.float32(0.2) * (array - kept[name])
        np.testing.assert_array_less(np.abs(after.ema[name] - expected), 2.0**-20 * (1 + np.abs(expected)))
        assert not state.mu[name].any()
        assert after.mu[name].any()
