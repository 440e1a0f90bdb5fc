"""Metrics of time and memory, and logging to Weights & Biases on request."""

import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.train import fake
from tests.train.images import tree
from train.__main__ import main
from train.config import cli
from train.logs.metrics import Metrics
from train.tasks.pretrain import Pretraining


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"), classes=2, each=42)


def lines(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_line_of_metrics_has_time_throughput_and_memory(images: Path, tmp_path: Path) -> None:
    before = time.time()
    fake.train(images, tmp_path)
    for line in lines(tmp_path):
        assert line.keys() == {"step", "epoch", "lr", "loss", "grad_norm", "skipped", *fake.CLOCK}
        assert before - 1 < line["time"] < time.time() + 1
        assert 0 < line["images_per_s_device"] == line["images_per_s"]
        assert 0 <= line["data_wait"] <= 1
        assert 20 < line["memory_mb"] < 10**5


def test_throughput_is_logged_for_all_devices_and_for_one() -> None:
    meter = Metrics(devices=4)
    meter.add(1, 0.1, {"loss": 1.0, "grad_norm": 2.0}, [], 64)
    values = meter.read()
    assert values["images_per_s"] == pytest.approx(4 * values["images_per_s_device"])
    assert meter.read() == {}


def test_a_run_whose_data_is_too_slow_says_so(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed = Pretraining.feed

    def slow(self: Pretraining, *sizes: int) -> Any:
        made = feed(self, *sizes)
        object.__setattr__(made, "augment", Late(made.augment))
        return made

    monkeypatch.setattr(Pretraining, "feed", slow)
    fake.train(images, tmp_path, "--max_steps", "6", "--num_workers", "1")
    assert all(line["data_wait"] > 0.8 for line in lines(tmp_path))
    assert capsys.readouterr().out.count("% of the time waiting for images") == 2


class Late:
    """An augmentation that takes its time."""

    def __init__(self, augment: Any) -> None:
        self.augment, self.min_size = augment, augment.min_size

    def __call__(self, *args: Any) -> Any:
        time.sleep(0.01)
        return self.augment(*args)


def test_a_run_whose_data_is_there_says_nothing(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.2")
    fake.train(images, tmp_path, "--max_steps", "6")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step 6/6")]
    assert len(said) == 1
    assert "waiting for images" not in said[0]


class Wandb(ModuleType):
    """The functions of Weights & Biases that are called, recording the calls."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.settings: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.codes: list[int] = []
        self.breaks = False

    def init(self, **settings: Any) -> "Wandb":
        self.settings.append(settings)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        if self.breaks:
            raise ConnectionError("the network\nis gone")
        self.logged.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_a_run_is_one_run_there_however_often_it_resumes(images: Path, tmp_path: Path, wandb: Wandb) -> None:
    fake.train(images, tmp_path, "--wandb", "mine", "--stop_at_step", "14")
    fake.train(images, tmp_path, "--wandb", "mine")
    first, second = wandb.settings
    assert first["id"] == second["id"] == (tmp_path / "wandb_id").read_text()
    assert (first["project"], first["resume"], first["config"]["batch_size"]) == ("mine", "allow", 12)
    logged = [(line["step"], line["loss"]) for line in lines(tmp_path)]
    assert [(step, values["train/loss"]) for step, values in wandb.logged] == logged
    assert wandb.codes == [0, 0]


def test_a_network_that_breaks_costs_one_line(
    images: Path, tmp_path: Path, wandb: Wandb, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb.breaks = True
    fake.train(images, tmp_path, "--wandb", "mine")
    line = "--wandb: logging stopped: the network is gone; metrics.jsonl has everything"
    assert capsys.readouterr().out.count(line) == 1
    assert len(lines(tmp_path)) == 12


def test_without_it_installed_it_is_one_line(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("backends.load", lambda name: fake.Backend)
    assert fake.main([str(images), str(tmp_path), "--wandb", "mine"]) == 2
    said = capsys.readouterr().err
    assert said == "train: --wandb: Weights & Biases is not installed; pip install 'twinnext[wandb]'\n"


def test_it_is_imported_on_request_only(images: Path, tmp_path: Path, wandb: Wandb) -> None:
    fake.train(images, tmp_path)
    assert wandb.settings == []
    assert not (tmp_path / "wandb_id").exists()


@pytest.mark.parametrize(
    ("flags", "project"),
    [
        ("--enable_wandb True --project p", "p"),
        ("--enable_wandb true", "convnext"),
        ("--project p", ""),
        ("--enable_wandb False --project p", ""),
        ("--wandb q", "q"),
    ],
)
def test_the_published_flags_ask_for_it(flags: str, project: str) -> None:
    assert cli.parse(flags.split()).run.wandb == project


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--enable_wand", "True"]) == 2
    assert "did you mean '--enable_wandb'?" in capsys.readouterr().err
