"""Fine-tuning with the real trainers: exact after an interruption, and evaluated to the scores of training."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
import convert
from backends.protocol import Batch
from convert.containers import run as run_format
from convert.containers.run import RunCheckpoint
from parity_tests.tolerances import assert_same
from tests.train import fake
from tests.train.images import tree
from train.__main__ import main
from train.checkpoints import store
from train.config import cli
from train.run import train

WORDS = (
    "--task finetune --model none --depths 1 1 --dims 8 12 --patch_size 8 --batch_size 8 --epochs 3"
    " --warmup_epochs 1 --lr 3e-3 --print_freq 1 --mixup 0.8 --cutmix 1.0 --mix_group 6 --drop_path 0.2"
    " --layer_decay 0.9 --head_init_scale 1 --model_ema True --model_ema_decay 0.8 --model_ema_eval True"
)
IMAGES = "--input_size 16 --mean 0.3 0.4 0.5 --std 0.2 0.3 0.4 --crop_pct 0.7"
"""What a run knows of its images."""

SCORES = ("acc1", "acc5", "val_loss", "acc1_ema", "acc5_ema", "val_loss_ema")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    tree(root / "train", classes=3, each=14)
    tree(root / "val", classes=3, each=7)
    return root


def run(images: Path, run_dir: Path, *flags: str) -> RunCheckpoint:
    """The last checkpoint of a run of five updates per epoch, 15 in all."""
    assert (
        main([*WORDS.split(), *IMAGES.split(), "--data_path", str(images), "--output_dir", str(run_dir), *flags]) == 0
    )
    found = store.newest(run_dir / "checkpoints", print)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of an undisturbed run, per framework."""

    @cache
    def made(backend: str) -> Path:
        run_dir = tmp_path_factory.mktemp("runs") / backend
        run(images, run_dir, "--backend", backend)
        return run_dir

    return made


@pytest.mark.parametrize("backend", backends.installed())
def test_an_interrupted_run_ends_bit_identical(
    images: Path, whole: Callable[[str], Path], tmp_path: Path, backend: str
) -> None:
    expected = store.newest(whole(backend) / "checkpoints", print)
    assert expected is not None
    assert run(images, tmp_path, "--backend", backend, "--stop_at_step", "7").step == 7
    found = run(images, tmp_path, "--backend", backend)
    assert found.step == found.state.t == 15
    for part in ("params", "mu", "nu", "ema"):
        assert getattr(found.state, part)
        assert_same(getattr(found.state, part), getattr(expected.state, part), part)
    assert any(not np.array_equal(found.state.ema[name], array) for name, array in found.state.params.items())


@pytest.mark.parametrize("backend", backends.installed())
def test_the_best_checkpoint_bare_or_whole_has_the_scores_of_training(
    images: Path, whole: Callable[[str], Path], tmp_path: Path, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (best,) = (whole(backend) / "best_acc1").iterdir()
    lines = [json.loads(line) for line in (whole(backend) / "metrics.jsonl").read_text().splitlines()]
    (expected,) = (line for line in lines if line["step"] == run_format.load(best).step and "acc1" in line)
    assert expected["acc1"] == max(line["acc1"] for line in lines if "acc1" in line)
    bare = tmp_path / "bare.pth"
    loaded = convert.load(best, weights_only=True)
    convert.save(convert.Checkpoint(loaded.model, loaded.arrays), bare, format="official-dense")
    common = f"--task eval --batch_size 8 --backend {backend} --finetune"
    by_hand = (*IMAGES.split(), "--data_path", str(images))
    for path, scores, more in ((best, SCORES, ("--model_ema_eval", "True")), (bare, SCORES[:3], by_hand)):
        capsys.readouterr()
        assert main([*common.split(), str(path), *more]) == 0
        assert capsys.readouterr().out.count("written") == 0
        assert main([*common.split(), str(path), *more, "--output_dir", str(tmp_path / "eval")]) == 0
        written = json.loads((tmp_path / "eval" / "eval.json").read_text())
        assert {name: round(written[name], 9) for name in scores} == {n: round(expected[n], 9) for n in scores}
        (line,) = (line for line in capsys.readouterr().out.splitlines() if "acc1 " in line)
        printed = dict(re.findall(r"(\w+) ([\d.]+)(?:, |$)", line))
        assert {name: printed[name] for name in scores} == {
            name: f"{expected[name]:.{4 if 'loss' in name else 2}f}" for name in scores
        }


def test_however_an_update_is_shared_out_its_mixed_samples_are_the_same(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten images per update, four updates per epoch, two images left over; groups of six cross updates and epochs."""
    seen: dict[str, list[Batch]] = {}
    rates: dict[str, list[float]] = {}
    step = fake.Trainer.step
    for size in ("10", "5", "2", "1"):

        def noted(self: fake.Trainer, batches: Any, lr: float, size: str = size) -> Any:
            columns = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
            seen.setdefault(size, []).append(columns)
            rates.setdefault(size, []).append(lr)
            return step(self, batches, lr)

        monkeypatch.setattr(fake.Trainer, "step", noted)
        share = ("--batch_size", size, "--update_freq", str(10 // int(size)), "--disable_eval", "True")
        words = [*WORDS.split(), *IMAGES.split(), "--model_ema_eval", "False", *share, "--data_path", str(images)]
        train(cli.parse([*words, "--output_dir", str(tmp_path / size)]), lambda name: fake.Backend)
    assert [len(updates) for updates in seen.values()] == [12] * 4
    for size, updates in seen.items():
        assert rates[size] == rates["10"]
        for found, expected in zip(updates, seen["10"], strict=True):
            assert_same(found, expected, f"batches of {size}")
    targets = np.concatenate([update["targets"] for update in seen["10"]])
    assert (np.sort(targets, 1)[:, 1] > 0.1).mean() > 0.3  # many samples have two labels
