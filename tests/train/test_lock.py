"""One run directory, one process: the second is refused in a line that names the first; a killed one leaves no lock."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.project.tree import ROOT
from tests.train import fake
from tests.train.images import tree
from train.checkpoints import lock
from train.errors import TrainError

HOLD = """
import sys, time
from pathlib import Path
from train.checkpoints.lock import locked
with locked(Path(sys.argv[1]), print):
    if sys.argv[2] == "fork":
        import os
        if os.fork() == 0:
            time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"), classes=2, each=12)


def holder(run_dir: Path, how: str = "alone") -> subprocess.Popen[str]:
    run_dir.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-c", HOLD, str(run_dir), how]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_run_is_refused_and_changes_nothing(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    run_dir = tmp_path / "run"
    with holder(run_dir) as first:
        (run_dir / ".writing-x").mkdir()  # what the first is writing
        with pytest.raises(TrainError) as error:
            fake.train(images, run_dir, "--max_steps", "1")
        os.killpg(first.pid, signal.SIGKILL)
    held = f"--output_dir {run_dir}: in use by process {first.pid} on {socket.gethostname()} since "
    assert str(error.value).startswith(held)
    assert str(error.value).endswith("; wait for its end, or give another --output_dir")
    assert sorted(path.name for path in run_dir.iterdir()) == [".lock", ".writing-x"]
    fake.train(images, run_dir, "--max_steps", "1")  # a killed process holds nothing
    assert (run_dir / ".lock").read_text() == ""


def test_a_child_does_not_keep_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    with holder(tmp_path, "fork") as first:
        first.kill()
        first.wait()
        began = time.monotonic()
        with lock.locked(tmp_path, print):
            assert time.monotonic() - began < 1
        os.killpg(first.pid, signal.SIGKILL)


def test_a_disk_without_locks_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    said: list[str] = []
    with lock.locked(tmp_path, said.append):
        assert said == [f"note: the disk of {tmp_path} has no locks; start no other run in this folder"]


def test_another_error_is_not_taken_for_a_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def fail(*_: object) -> None:
        calls.append(_)
        raise OSError(lock.errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.lockf", fail)
    with pytest.raises(OSError, match="Input/output error"), lock.locked(tmp_path, print):
        pass
    assert len(calls) == 1


def test_a_refused_run_leaves_the_configuration_of_the_first(images: Path, tmp_path: Path) -> None:
    fake.train(images, tmp_path, "--max_steps", "1")
    before = (tmp_path / "config.toml").read_text()
    with pytest.raises(TrainError, match="--seed 1: the run began with 0"):
        fake.train(images, tmp_path, "--max_steps", "1", "--seed", "1")
    assert (tmp_path / "config.toml").read_text() == before


def test_a_peak_that_is_never_reached_is_not_announced(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """24 images in two updates per epoch: three epochs of a warm-up of 40."""
    fake.train(images, tmp_path, "--epochs", "3", "--warmup_epochs", "40", "--lr", "0.4")
    said = capsys.readouterr().out
    assert "6 updates of 12 images, peak learning rate 2.50e-02;" in said
    line = "note: the learning rate stays below 4.00e-01: the warm-up takes 40 epochs (--warmup_epochs), the run 3\n"
    assert line in said
