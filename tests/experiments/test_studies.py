"""The study of few labels: from made files to its tables, in a few runs of a moment each."""

import argparse
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import eurosat, stl10
from experiments.experiment import Experiment
from experiments.runs import Queue, Run
from experiments.studies import PRETRAINED, SCRATCH, Runs, Study
from tests.train.shards import idx
from train.config.cli import parse

TINY = Study(
    name="made images",
    unlabelled=Path(),
    labelled=Path(),
    evaluation=Path(),
    model="--input_size 16 --patch_size 8 --depths 1 1 --dims 4 8 --in_chans 1 --mean 0.5 --std 0.25",
    pretrain="--epochs 1 --warmup_epochs 0 --batch_size 16 --parity_check False --picture_freq 0",
    finetune="--batch_size 4 --aa none --reprob 0 --warmup_epochs 0",
    labels={12: "--epochs 2"},
    tried={SCRATCH: ("--blr 1e-2", "--blr 1e-1"), PRETRAINED: ("--blr 1e-2",)},
    repeated=(12,),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright images of class 0 and dark ones of class 1."""
    root = tmp_path_factory.mktemp("fashion")
    for part, count in (("train", 48), ("t10k", 12)):
        labels = np.arange(count, dtype=np.uint8) % 2
        images = np.random.default_rng(count).integers(0, 100, (count, 16, 16)) + 150 * (1 - labels[:, None, None])
        idx(root / f"{part}-images-idx3-ubyte", images.astype(np.uint8))
        idx(root / f"{part}-labels-idx1-ubyte", labels)
    return root


def output_of(data: Path, folder: Path, capsys: pytest.CaptureFixture[str], *backends: str, **fields: Any) -> str:
    """What a run of the study, with other fields, prints."""
    test = data / "t10k-images-idx3-ubyte"
    args = argparse.Namespace(backend=backends or ["torch"], seeds=1, processes=1, output_dir=folder)
    Experiment(replace(TINY, unlabelled=data, labelled=data, evaluation=test, **fields), args).run()
    return capsys.readouterr().out


class InThisProcess:
    """In place of a pool: a process takes seconds to import the frameworks."""

    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, function: Callable[..., float], *args: object) -> Future[float]:
        found: Future[float] = Future()
        found.set_result(function(*args))
        return found


def test_a_study_runs_to_its_table_and_is_not_repeated(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.runs.ProcessPoolExecutor", InThisProcess)
    text = output_of(data, tmp_path, capsys)
    assert "made images: about 0:0" in text
    assert f"| {SCRATCH} | 12 | `--blr 1e-1` |" in text
    for row in (f"fine-tuned, {PRETRAINED}", "timm, from scratch", "linear probe, untrained", "10-NN, pixels"):
        assert row in text
    assert (tmp_path / "curves.png").is_file()
    assert (tmp_path / "torch" / "reconstructions" / "reconstruction-00.png").is_file()
    again = output_of(data, tmp_path, capsys)
    assert " s\n" not in again, "a run was repeated"
    assert again[again.index("| top-1, %") :] == text[text.index("| top-1, %") :]
    (tmp_path / "torch" / "pre-trained_12_0_blr_1e-2" / "finished").unlink()  # only a run that needs another is missing
    assert "torch/pre-trained_12_0_blr_1e-2: " in output_of(data, tmp_path, capsys)
    both = output_of(data, tmp_path, capsys, "torch", "jax", repeated=())
    assert "jax/pretrained: " in both
    assert "| top-1, %, jax" not in both
    assert both[both.index("| top-1, %") :] == text[text.index("| top-1, %") :]


def test_a_failing_run_ends_in_its_own_line(tmp_path: Path) -> None:
    run = Run(tmp_path / "study" / "torch" / "run", ("--no_such_flag", "1"))
    with pytest.raises(SystemExit, match="python -m train --no_such_flag 1: train: --no_such_flag"):
        Queue(1).run([run])
    assert not run.finished


def test_a_folder_of_other_flags_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "study" / "torch" / "run", ("--seed", "1"))
    run.folder.mkdir(parents=True)
    (run.folder / "finished").write_text("--seed 2")
    with pytest.raises(SystemExit, match="holds runs with other flags; give another"):
        Queue(1).run([run])


def test_the_published_commands_are_understood(tmp_path: Path) -> None:
    """Every command of the studies on data that is not here parses, to the end of its flags."""
    for study in (stl10.study(tmp_path), eurosat.study(tmp_path / "train", tmp_path / "test")):
        runs = Runs(study, "jax", tmp_path)
        assert parse(runs.pretraining().words).run.task == "pretrain"
        for (start, tried), count in product(study.tried.items(), study.labels):
            config = parse(runs.finetuning(start, count, 0, tried[0]).words)
            assert config.finetune.train_labels == count
            assert config.data.image_size == parse(runs.pretraining().words).data.image_size
