"""A run directory written by version 0.1.0 (commit 377f684, the fake backend) still loads, resumes and has a report."""

import shutil
from pathlib import Path

import pytest

import convert
import spec
from tests.train import fake
from tests.train.images import tree
from train.config import cli
from train.report.run_data import load

OLD = Path(__file__).with_name("old_run")
STEP = "step-00000014"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def test_its_configuration_is_read_back(run_dir: Path) -> None:
    config = cli.parse(["--config", str(run_dir / "config.toml")])
    expected = {"dims": (4,), "patch_size": 4, "input_size": (16,), "batch_size": 12, "stop_at_step": 14}
    assert config.flags().items() >= expected.items()


def test_it_resumes_from_its_checkpoint(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tree(tmp_path / "images", classes=2, each=42)
    before = fake.metrics(run_dir)
    assert fake.train(images, run_dir) is None
    assert f"resumed from {run_dir / 'checkpoints' / STEP}" in capsys.readouterr().out
    assert fake.last(run_dir).state.t == 28
    after = fake.metrics(run_dir)
    assert after[: len(before)] == before
    assert after[-1]["step"] == 28


def test_its_checkpoint_is_read_by_convert(run_dir: Path) -> None:
    for path in (run_dir, run_dir / "checkpoints" / STEP):
        found = convert.load(path)
        assert {name: found.arrays[name].shape for name in found.arrays} == {
            name: param.shape for name, param in spec.parameters(found.model).items()
        }


def test_its_report_is_read(run_dir: Path) -> None:
    found = load(run_dir)
    assert found.last("step") == 14
    assert found.about[0].startswith("python 3.11.7, twinnext 0.1.0")
