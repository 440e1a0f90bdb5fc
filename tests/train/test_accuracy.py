"""Accuracy: top-1 and top-5 of every real row, and the best checkpoint kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
import convert
from backends.cluster import SingleProcess
from backends.protocol import Arrays, Batch, State
from convert import files
from convert.containers import run as run_format
from tests.train import fake
from tests.train.images import tree
from train import run
from train.__main__ import main
from train.checkpoints import store
from train.checkpoints.best import BestCheckpoints
from train.config import cli
from train.data.pixels import normalise
from train.tasks.accuracy import Score

GOLDEN = Path(__file__).parents[2] / "parity_tests" / "golden" / "official_classifier.pth"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_hits_are_counted_among_the_first_and_the_first_five() -> None:
    logits = np.tile(np.arange(8.0), (4, 1))
    score = Score()
    score.add(logits, np.array([7, 3, 2, -1]))
    score.add(logits[:1], np.array([7]))
    log = np.log(np.exp(np.arange(8.0)).sum())
    found = score.read(SingleProcess())
    assert (found["acc1"], found["acc5"]) == (50.0, 75.0)
    assert found["val_loss"] == pytest.approx(log - (7 + 3 + 2 + 7) / 4)


def test_a_model_that_cannot_choose_is_not_always_right() -> None:
    score = Score()
    score.add(np.zeros((10, 10)), np.arange(10))
    assert (score.read(SingleProcess())["acc1"], score.read(SingleProcess())["acc5"]) == (10.0, 50.0)


def test_two_classes_and_padding_alone_are_no_trap() -> None:
    score = Score()
    score.add(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    score.add(np.zeros((3, 2)), np.full(3, -1))
    assert (score.read(SingleProcess())["acc1"], score.read(SingleProcess())["acc5"], score.images) == (50.0, 100.0, 2)


def test_large_logits_are_finite() -> None:
    score = Score()
    score.add(np.array([[1e4, -1e4]]), np.array([1]))
    assert score.read(SingleProcess())["val_loss"] == 2e4


def _kept(run_dir: Path, name: str) -> list[str]:
    return sorted(path.name for path in (run_dir / name).iterdir())


def test_the_best_of_each_score_is_kept_alone(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 3, "loss": 1}\n{"step": 3, "acc1": 40}\n')
    best, state = BestCheckpoints(tmp_path), State({"w": np.ones(2, np.float32)})
    offers = [(4, 30, 10), (5, 50, 10), (6, 50, 12), (7, 49, 11)]
    raised = []
    for step, acc1, acc1_ema in offers:
        scores = {"acc1": acc1, "acc1_ema": acc1_ema, "val_loss": 9}
        raised.append(best.improved(scores))
        best.save(step, scores, state, {})
    assert raised == [["acc1_ema"], ["acc1"], ["acc1_ema"], []]
    assert (_kept(tmp_path, "best_acc1"), _kept(tmp_path, "best_acc1_ema")) == (["step-00000005"], ["step-00000006"])
    assert run_format.load(tmp_path / "best_acc1" / "step-00000005").meta["scores"]["acc1"] == 50
    for leftover in (f"{files.ASIDE}x", f"{files.DOOMED}y"):  # of a killed process
        (tmp_path / "best_acc1" / leftover).mkdir()
    BestCheckpoints(tmp_path)
    assert _kept(tmp_path, "best_acc1") == ["step-00000005"]
    BestCheckpoints(tmp_path).save(4, {"acc1": 60}, state, {})  # an earlier step, of a run begun again
    assert _kept(tmp_path, "best_acc1") == ["step-00000004"]


class Classifier(fake.Trainer):
    """Predicts from its parameters, so that its accuracy goes up and down in training."""

    def evaluate(self, batch: Batch, *, ema: bool = False) -> Arrays:
        seed = int.from_bytes(self.state.params["head.bias"].tobytes()[:4], "big")
        return {
            "logits": np.random.default_rng([seed, ema]).normal(size=(len(batch["images"]), self.model.num_classes))
        }


class Backend(fake.Backend):
    Trainer = Classifier


def finetune(images: Path, run_dir: Path, *flags: str) -> None:
    words = [
        *fake.SHORT.split(),
        "--task",
        "finetune",
        "--data_path",
        str(images),
        "--output_dir",
        str(run_dir),
        *flags,
    ]
    run.train(cli.parse(words), lambda name: Backend)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    tree(root / "train", classes=3, each=12)
    tree(root / "val", classes=3, each=9)
    return root


def test_a_fine_tuning_run_cut_short_ends_as_if_it_had_not_been(images: Path, tmp_path: Path) -> None:
    finetune(images, tmp_path / "whole")
    for stop in ("4", "6", "9", "12"):
        finetune(images, tmp_path / "cut", "--stop_at_step", stop)
    found, expected = (fake.metrics(tmp_path / name) for name in ("cut", "whole"))
    evaluations = [line for line in expected if "acc1" in line]
    assert [line["step"] for line in evaluations] == [3, 6, 9, 12]
    assert [line for line in found if "acc1" in line and line["step"] in (3, 6, 9, 12)] == evaluations
    best = max(evaluations, key=lambda line: line["acc1"])
    assert _kept(tmp_path / "whole", "best_acc1") == [f"step-{best['step']:08d}"]
    states = [store.newest(tmp_path / name / "checkpoints", print) for name in ("cut", "whole")]
    for name, array in states[1].state.params.items():
        np.testing.assert_array_equal(states[0].state.params[name], array)


def test_what_is_trained_and_evaluated_on_is_shown(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "val" / "c1" / "0.jpg").write_bytes(b"")
    finetune(images, tmp_path, "--stop_at_step", "3")
    said = capsys.readouterr().out
    assert "training: 36 images in 3 classes: c0 (12), c1 (12), c2 (12)\n" in said
    assert "evaluation: 27 images in 3 classes: c0 (9), c1 (9), c2 (9)\n" in said
    assert f"skipped, 1 so far: {images}/val/c1/0.jpg: " in said
    assert "step 3, epoch 1.0: acc1 " in said


def test_evaluation_can_be_disabled(images: Path, tmp_path: Path) -> None:
    finetune(images, tmp_path, "--disable_eval", "True", "--data_path", str(images / "train"))
    assert all("acc1" not in line for line in fake.metrics(tmp_path))
    assert not (tmp_path / "best_acc1").exists()


@pytest.mark.parametrize("backend", backends.installed())
def test_a_bare_published_checkpoint_is_evaluated(
    tmp_path: Path, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 96, 3), np.uint8)
    loaded = convert.load(GOLDEN)
    framework = backends.load(backend)
    model = framework.build(loaded.model)
    framework.set_arrays(model, {name: np.asarray(loaded.arrays[name]) for name in loaded.arrays})
    logits = framework.forward(model, normalise(images, MEAN, STD))["logits"]
    labels = logits.argmax(1)
    labels[3:] = logits[3:].argsort(1)[:, -3]
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    words = ["--task", "eval", "--backend", backend, "--finetune", str(GOLDEN), "--data_path", str(tmp_path / "x.npz")]
    assert main([*words, "--input_size", "64", "96", "--crop_pct", "1", "--batch_size", "2"]) == 0
    said = capsys.readouterr().out
    assert f"parameters from {GOLDEN}" in said
    assert "acc1 60.00, acc5 100.00, val_loss " in said


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--task eval", "--task eval: give the checkpoint with --finetune or --resume"),
        ("--task eval --finetune {golden} --resume {golden}", "--task eval: give the checkpoint with --finetune or w"),
        ("--task eval --finetune {golden} --in_chans 1", "--in_chans 1: the model in {golden} takes 3; leave it out"),
        ("--task eval --finetune {golden} --dims 8 16", "{golden}: its encoder differs; give --mo"),
        ("--task eval --finetune {golden} --nb_classes 3", "--nb_classes 3: the head in {golden} has 11 classes"),
        (
            "--task eval --finetune {golden} --data_path {images}",
            "{golden}: the checkpoint has no class names; it has 11 classes, the data 3 (c0, c1, c2)",
        ),
        (
            "--task eval --finetune {golden} --input_size 50",
            "image_size: the height 50 is no multiple",
        ),
        ("--task eval --finetune {golden} --model_ema_eval 1", "--model_ema_eval True: {golden} holds no EMA"),
        ("--task eval --finetune {fcmae} --nb_classes 3", "--nb_classes: is for a classifier, and {fcmae} has an auto"),
        (
            "--task eval --finetune {golden} --mask_policy grid",
            "--mask_policy: is for an autoencoder, and {golden} has",
        ),
        ("--task eval --finetune {golden} --seed 3", "--seed: is for an autoencoder, and {golden} has none; leave it"),
        ("--task eval --finetune {images}/none.pth", "{images}/none.pth: no such file or folder"),
        ("--task finetune --model_ema_eval 1", "--model_ema_eval True: there is no EMA to evaluate"),
        (
            "--task finetune --nb_classes 9",
            "--nb_classes 9: the data has 10 classes (0, 1, 2, 3, 4, 5,",
        ),
        ("--task finetune --aa v0", "--aa v0: not a policy"),
        ("--task finetune --drop_path 1", "drop_path: 1.0 is not"),
        ("--task finetune --data_path {images}/train", "--data_path {images}/train: no val/ in it"),
        ("--task finetune --data_path {images}/val/c0", "--data_path {images}/val/c0: all images are of one class"),
        (
            "--task finetune --data_path {images} --finetune {fcmae}",
            "--finetune {fcmae}: its encoder differs",
        ),
        (
            "--task finetune --data_path {images} --in_chans 5 --mean 0 --std 1",
            "--aa rand-m9-mstd0.5-inc1: is for",
        ),
        ("--task finetune --data_path {images} --input_size 100", "image_size: the height 100 is no multiple"),
    ],
)
def test_a_mistake_is_one_line(
    images: Path, tmp_path: Path, words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places: dict[str, Any] = {"images": images, "golden": GOLDEN, "fcmae": GOLDEN.with_name("official_fcmae.pth")}
    flags = [*words.format(**places).split(), "--output_dir", str(tmp_path), "--batch_size", "4", "--backend", "torch"]
    assert main(flags) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"train: {line.format(**places)}")
    assert said.count("\n") == 1


def test_the_suggested_flags_fit_the_checkpoint(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--task",
        "finetune",
        "--finetune",
        str(GOLDEN.with_name("official_fcmae.pth")),
        "--data_path",
        str(images),
    ]
    words += ["--output_dir", str(tmp_path), "--batch_size", "4", "--max_steps", "1", "--input_size", "32"]
    assert main(words) == 2
    suggested = capsys.readouterr().err.rpartition("differs; give ")[2].split()
    assert main([*words, *suggested]) == 0
    (line, scores) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite(line["loss"])
    assert scores["step"] == 1
