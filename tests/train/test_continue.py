"""A training state of the released scripts continues: as --resume, or converted into a run directory."""

import shutil
from pathlib import Path

import pytest

import backends
import convert
from convert.__main__ import main as convert_main
from tests.train import fake
from tests.train.fake import assert_same_run, last
from tests.train.images import tree
from train.__main__ import main
from train.errors import TrainError

FLAGS = "--max_steps 4 --in_chans 1"
ARGS = {"batch_size": 12, "update_freq": 1, "world_size": 2, "lr": None, "blr": 0.5, "input_size": 16, "epochs": 9}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"), classes=2, each=24)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    fake.train(images, run_dir, *FLAGS.split())
    return run_dir


@pytest.fixture(scope="module")
def official(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its state after two updates, as the released script would have saved it."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("official")
    fake.train(images, folder / "half", *FLAGS.split(), "--stop_at_step", "2")
    loaded = convert.load(folder / "half")
    loaded.meta = {"epoch": 0, "args": ARGS}
    convert.save(loaded, folder / "checkpoint.pth", format="official-dense")
    return folder / "checkpoint.pth"


def test_a_converted_run_continues(
    images: Path, official: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert convert_main(["translate", str(official), "--to", "ours", "-o", str(run_dir)]) == 0
    fake.train(images, run_dir, *FLAGS.split())
    said = capsys.readouterr().out
    assert f"resumed from {run_dir}\n" in said
    assert f"note: {run_dir} does not say what data, order and seed it began with" in said
    assert "note: 12 images per update, it had 24\n" in said
    assert "note: --blr is 0.01, the run began with 0.5\n" in said
    assert "--input_size" not in said
    assert_same_run(run_dir, whole)
    newest, loaded = last(run_dir).state, convert.load(run_dir)  # which --finetune reads
    assert newest.t == 4
    assert all((loaded.arrays[name] == array).all() for name, array in newest.params.items())


@pytest.mark.parametrize("args", [{"lr": "0.1"}, {"blr": 0.0}])
def test_a_learning_rate_that_is_no_number_or_absent(
    args: dict[str, object], images: Path, official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = convert.load(official)
    loaded.meta = {"epoch": 0, "args": args}
    convert.save(loaded, tmp_path / "other.pth", format="official-dense")
    words = [*FLAGS.split(), "--blr", "0", "--resume", str(tmp_path / "other.pth")]
    fake.train(images, tmp_path / "run", *words)
    assert ("note: --lr is None, the run began with 0.1\n" in capsys.readouterr().out) == ("lr" in args)


@pytest.mark.parametrize("kind", [".pth", "a run", "a checkpoint"])
def test_resume_takes_what_there_is(
    kind: str, images: Path, official: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = official.parent / "half"
    path = {".pth": official, "a run": half, "a checkpoint": half / "checkpoints" / "step-00000002"}[kind]
    fake.train(images, tmp_path, *FLAGS.split(), "--resume", str(path))
    assert_same_run(tmp_path, whole)


def test_the_same_command_continues_from_its_own_checkpoints(
    images: Path, official: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a requeued job does."""
    words = (*FLAGS.split(), "--resume", str(official))
    fake.train(images, tmp_path, *words, "--stop_at_step", "3")
    fake.train(images, tmp_path, *words)
    assert f"note: {tmp_path} is at step 3, past that of --resume, and continues from there" in capsys.readouterr().out
    assert_same_run(tmp_path, whole)


def test_weights_alone_are_refused(images: Path, official: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    assert convert_main(["translate", str(official), "--to", "ours", "--weights-only", "-o", str(weights)]) == 0
    with pytest.raises(TrainError) as error:
        fake.train(images, tmp_path / "run", *FLAGS.split(), "--resume", str(weights))
    advised = f"start from its encoder with --task finetune --finetune {weights} and another --output_dir"
    assert str(error.value) == f"{weights}: has no optimizer state, so training cannot continue; {advised}"


def test_another_model_is_refused(images: Path, official: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"another model \(encoder.dims \[4\] there, \[8\] here\)"):
        fake.train(images, tmp_path, *FLAGS.split(), "--resume", str(official), "--dims", "8")


@pytest.mark.parametrize("backend", backends.installed())
def test_both_frameworks_continue_it(backend: str, images: Path, official: Path, tmp_path: Path) -> None:
    """The first update has the momentum of the file: another one without it."""
    words = [*fake.QUICK.split(), *FLAGS.split(), "--backend", backend, "--data_path", str(images), "--max_steps", "3"]
    run_dir, without = tmp_path / "run", tmp_path / "without"
    assert main([*words, "--resume", str(official), "--output_dir", str(run_dir)]) == 0
    found = last(run_dir)
    assert (found.step, found.state.t) == (3, 3)
    shutil.copytree(official.parent / "half", without)
    assert main([*words, "--output_dir", str(without)]) == 0
    assert fake.metrics(run_dir)[-1]["loss"] == fake.metrics(without)[-1]["loss"]
    for name, array in last(without).state.mu.items():
        assert (found.state.mu[name] == array).all()
        assert (found.state.params[name] == last(without).state.params[name]).all()
