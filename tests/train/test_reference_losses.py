"""The losses of reference runs, update by update, in both frameworks: `make reference`, minutes.

A file of `losses/` holds the curve of a run in float64, so that on every machine both frameworks follow it in
float32 to within rounding. Its command wrote the losses to `metrics.jsonl`.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import backends
from experiments.fashion_mnist import DEBIAN, MODEL, PRETRAIN
from parity_tests import tolerances
from spec.training import Optimizer
from train.__main__ import main

pytestmark = pytest.mark.slow

CURVES = {
    "digits": "--data_path digits --engine visible --max_steps 200",
    "fashion-mnist": f"--data_path {DEBIAN} {MODEL} {PRETRAIN} --engine visible --stop_at_step 200",
}
"""Name of a file of `losses/` -> the flags of its run, --data_path first."""

QUIET = "--print_freq 1 --save_ckpt False --picture_freq 0 --parity_check False"


def reference(name: str) -> np.ndarray:
    """The losses of a curve."""
    return np.array(json.loads((Path(__file__).parent / "losses" / f"{name}.json").read_text())["losses"])


def losses(name: str, run_dir: Path, *flags: str) -> np.ndarray:
    """The losses of the same run today; skips where its data is not installed."""
    data = CURVES[name].split()[1]
    if data != "digits" and not Path(data).exists():
        pytest.skip(f"the data of {name} is not installed: {data}")
    assert main([*CURVES[name].split(), *QUIET.split(), "--output_dir", str(run_dir), *flags]) == 0
    return np.array([json.loads(line)["loss"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()])


def assert_same_curve(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """AssertionError if an update's loss differs from what is expected, relative to itself, by more than rounding."""
    bound = tolerances.losses("float32", len(expected))
    expected = expected[: len(found)]
    tolerances.assert_close(found / expected, np.ones(len(expected)), bound, what)


@pytest.mark.parametrize("backend", backends.installed())
@pytest.mark.parametrize("name", CURVES)
def test_a_framework_reproduces_the_losses(name: str, backend: str, tmp_path: Path) -> None:
    found, expected = losses(name, tmp_path, "--backend", backend), reference(name)
    assert len(found) == len(expected)
    assert_same_curve(found, expected, f"{name}, {backend}")


@pytest.mark.parametrize(
    ("flags", "eps"),
    [
        ("--seed 1", 1e-8),
        ("--weight_decay 0.04", 1e-8),
        ("--opt_betas 0.9 0.999", 1e-8),
        ("", 1e-7),
    ],
    ids=["another seed", "weight decay", "beta2", "Adam's epsilon"],
)
def test_a_mistake_changes_the_losses(flags: str, eps: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.tasks.pretrain.Optimizer", partial(Optimizer, eps=eps))
    backend = backends.installed()[0]
    found = losses("digits", tmp_path, "--backend", backend, "--stop_at_step", "30", *flags.split())
    with pytest.raises(AssertionError, match="digits: off by"):
        assert_same_curve(found, reference("digits"), "digits")
