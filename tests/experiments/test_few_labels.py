"""The experiment with few labels, scaled down: a tiny model, two updates per run."""

import sys
from pathlib import Path

import pytest

from experiments import few_labels
from experiments.runs import spread

TINY = "--model none --depths 1 1 --dims 4 8 --patch_size 8 --batch_size 20"
SHORT = "--max_steps 2"
ROWS = [
    "fine-tuned, from scratch",
    "linear probe, untrained",
    "10-NN, untrained",
    "fine-tuned, pre-trained",
    "linear probe, pre-trained",
    "10-NN, pre-trained",
    "10-NN, pixels",
    "pre-trained minus from scratch, per seed",
]


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> None:
    flags = ["--output_dir", str(folder), "--backend", "torch", "--labels", "20", "--seeds", "1"]
    flags += [f"--pretrain_flags={TINY} {SHORT} --decoder_embed_dim 4 --parity_check False"]
    flags += [f"--flags={TINY}", f"--finetune_flags={SHORT}"]
    monkeypatch.setattr(sys, "argv", ["few_labels", *flags, *words])
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    few_labels.main()


def test_the_table_shows_the_runs_and_no_run_is_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, tmp_path)
    printed = capsys.readouterr().out
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines()]
    assert lines[0] == ["top-1 on the held-out digits, %", "torch"]
    assert [line[0] for line in lines[2:]] == ROWS
    assert len(list((tmp_path / "torch").glob("*/finished"))) == 5
    log = (tmp_path / "torch" / "pre-trained_0_probe" / "log.txt").read_text()
    assert f"encoder: {tmp_path}/torch/pretrained\n" in log
    assert "training: 20 images in 10 classes: 0 (2), 1 (2)" in log
    monkeypatch.setattr("train.__main__.main", lambda words: pytest.fail("trained again"))
    run(monkeypatch, tmp_path)
    assert capsys.readouterr().out == printed
    with pytest.raises(SystemExit, match="holds runs with other flags"):
        run(monkeypatch, tmp_path, "--labels", "30")


def test_the_search_does_not_use_the_held_out_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(few_labels, "TRIED", {"from scratch": ("--blr 1e-3",), "pre-trained": ("--blr 1e-3",)})
    monkeypatch.setattr(few_labels, "SEARCHED", range(100, 101))
    run(monkeypatch, tmp_path, "--search")
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "from scratch, --blr 1e-3",
        "pre-trained, --blr 1e-3",
    ]
    log = (tmp_path / "torch" / "from_scratch_100_--blr_1e-3" / "log.txt").read_text()
    assert "evaluation: 1,422 images" in log


def test_a_run_that_fails_ends_the_experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"python -m train .*: train: --train_labels 5: the data has 10") as end:
        run(monkeypatch, tmp_path, "--labels", "5")
    assert "\n" not in str(end.value)


def test_neighbours_of_pixels_improve_with_labels() -> None:
    found = [few_labels.neighbours_of_pixels(count, 0) for count in (10, 100, 1000)]
    assert 30 < found[0] < found[1] < found[2] < 100


def test_spread_and_gain_are_those_of_the_seeds() -> None:
    results = {"fine-tuned, from scratch": [90.0, 92.0, 94.0], "fine-tuned, pre-trained": [93.0, 92.0, 98.0]}
    *_, last = few_labels.table({"torch": results}).splitlines()
    assert spread([90.0, 92.0, 94.0]) == "92.0 ± 2.0 (90.0 to 94.0)"
    assert last == "| pre-trained minus from scratch, per seed | 2.3 ± 2.1 (0.0 to 4.0); above 0 in 2 of 3 |"
