"""Accidents that a run survives, or that end it in one line with its checkpoints intact; each really happens here."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.project.tree import ROOT
from tests.train import fake
from tests.train.fake import assert_same_run, last, metrics
from tests.train.images import tree
from tests.train.namespace import ALLOWED, bash
from tests.train.victim import Victim, saved, writing
from train.data import pipeline
from train.data.pipeline import Watch, prefetch
from train.errors import TrainError

mounts = pytest.mark.skipif(not ALLOWED, reason="mounting is not allowed here, not even in a namespace of one's own")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"), classes=2, each=42)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run that saves after every update."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    fake.train(images, run_dir, "--save_every_steps", "1")
    return run_dir


def test_a_run_killed_four_times_ends_bit_identical(images: Path, tmp_path: Path, whole: Path) -> None:
    seed = random.randrange(10**6)
    print(f"kills drawn from seed {seed}")
    draw = random.Random(seed)
    words = ("tests.train.fake", str(images), str(tmp_path / "run"), "--save_every_steps", "1")
    for kill in range(4):
        before = len(saved(tmp_path / "run"))
        with Victim(*words, FAKE_STEP_SECONDS="0.02") as victim:
            assert victim.wait_for(lambda before=before: saved(tmp_path / "run") and _newest(tmp_path) > before)
            if kill % 2:
                victim.wait_for(lambda: writing(tmp_path / "run"))
            time.sleep(draw.uniform(0, 0.03))
            victim.send("SIGKILL")
            assert victim.end()[0] == -signal.SIGKILL
    fake.train(images, tmp_path / "run", "--save_every_steps", "1")
    assert_same_run(tmp_path / "run", whole)
    assert metrics(tmp_path / "run") == metrics(whole)


def _newest(folder: Path) -> int:
    return int(saved(folder / "run")[-1].removeprefix("step-"))


FULL = """
mount -t tmpfs -o size=600k none $disk
FAKE_STEP_SECONDS=0.05 $python -m tests.train.fake $images $disk/run --save_every_steps 1 --print_freq 1 >$log 2>&1 &
until [ -d $disk/run/checkpoints/step-00000002 ]; do sleep 0.01; kill -0 $!; done
head -c 1M /dev/zero >$disk/filler 2>/dev/null || true
until grep -q 'checkpoint not saved' $log; do sleep 0.01; kill -0 $!; done
"""


@mounts
def test_a_disk_that_is_full_for_a_while_costs_a_few_checkpoints(images: Path, tmp_path: Path, whole: Path) -> None:
    (tmp_path / "disk").mkdir()
    script = FULL + "rm $disk/filler; wait $!; cp -r $disk/run $out"
    places = {"disk": tmp_path / "disk", "out": tmp_path / "run", "log": tmp_path / "log"}
    done = bash(script, images=images, **places)
    said = (tmp_path / "log").read_text()
    assert done.returncode == 0, said + done.stderr
    assert "cannot be written: No space left on device (older checkpoints are intact; training continues" in said
    assert "Traceback" not in said
    assert_same_run(tmp_path / "run", whole)
    assert [line["step"] for line in metrics(tmp_path / "run")] == list(range(1, 29))


@mounts
def test_a_disk_that_stays_full_ends_in_one_line_with_older_checkpoints_whole(
    images: Path, tmp_path: Path, whole: Path
) -> None:
    (tmp_path / "disk").mkdir()
    script = FULL + "status=0; wait $! || status=$?; rm $disk/filler; cp -r $disk/run $out; exit $status"
    places = {"disk": tmp_path / "disk", "out": tmp_path / "run", "log": tmp_path / "log"}
    done = bash(script, images=images, **places)
    said = (tmp_path / "log").read_text()
    assert done.returncode == 2, said + done.stderr
    assert "train: " in said
    assert "step-00000028: cannot be written: No space left on device; older checkpoints are intact: the" in said
    assert "Traceback" not in said
    assert 2 <= last(tmp_path / "run").step < 28
    fake.train(images, tmp_path / "run", "--save_every_steps", "1")
    assert_same_run(tmp_path / "run", whole)


@mounts
def test_a_disk_that_turns_read_only_costs_checkpoints_and_no_update(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    script = """
    mount -t tmpfs -o size=600k none $run/checkpoints
    FAKE_STEP_SECONDS=0.05 $python -m tests.train.fake $images $run --save_every_steps 2 >$log 2>&1 &
    until [ -d $run/checkpoints/step-00000002 ]; do sleep 0.01; kill -0 $!; done
    until mount -o remount,ro $run/checkpoints 2>/dev/null; do sleep 0.01; kill -0 $!; done
    status=0; wait $! || status=$?
    cp -r $run/checkpoints $out
    exit $status
    """
    done = bash(script, images=images, run=run, out=tmp_path / "kept", log=tmp_path / "log")
    said = (tmp_path / "log").read_text()
    assert done.returncode == 2, said + done.stderr
    assert "cannot be written: Read-only file system; older checkpoints are intact: the same command" in said
    assert [line["step"] for line in metrics(run)][-1] == 28
    assert any((tmp_path / "kept").iterdir())


@mounts
def test_a_read_only_folder_is_one_line(images: Path, tmp_path: Path) -> None:
    script = "mount -t tmpfs -o ro none $disk; $python -m tests.train.fake $images $disk/run"
    done = bash(script, images=images, disk=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"train: --output_dir {tmp_path}/run: cannot be written: Read-only file system\n"


class Slow:
    """Batch n is n squared, computed slowly."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, index: int) -> int:
        time.sleep(self.seconds)
        return index**2


def test_a_killed_data_worker_is_replaced_and_its_batches_made_again() -> None:
    said: list[str] = []
    made = prefetch(Slow(0.05), 3, 15, 2, "process", Watch(said.append))
    found = [next(made), next(made)]  # one of each worker, which ignores the signal by then
    deaf, victim = active_children()
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2"):  # as a scheduler sends them to every process
        os.kill(deaf.pid, getattr(signal, name))
    os.kill(victim.pid, signal.SIGKILL)
    assert found + list(made) == [number**2 for number in range(3, 15)]
    (line,) = said
    assert line.startswith("--worker_type process: a data worker died (exit status -9) before it had made batch")
    assert active_children() == []


ORPHANS = """
from collections.abc import Callable
from multiprocessing import active_children
from tests.train.test_accidents import Slow
from train.data.pipeline import prefetch
if __name__ == "__main__":
    next(prefetch(Slow(3600), 0, 9, 2, "process"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills the children of a killed process")
def test_data_workers_die_with_their_run(tmp_path: Path) -> None:
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(script)], cwd=ROOT, env=environment) as parent:
        try:
            assert _soon(lambda: len(_deaf(parent.pid)) == 2)
            workers = _deaf(parent.pid)
        finally:
            parent.kill()
    assert _soon(lambda: not any(_alive(pid) for pid in workers))


def _soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def _deaf(parent: int) -> list[int]:
    """The data workers of a process that already ignore SIGUSR1."""
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    found = []
    for pid in map(int, listed):
        ignored = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn")]
        if int(ignored[0].split()[1], 16) >> (signal.SIGUSR1 - 1) & 1:
            found.append(pid)
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_files_that_vanish_during_a_run_are_skipped_and_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, step = tree(tmp_path / "images", classes=2, each=42), fake.Trainer.step

    def losing(self: fake.Trainer, *args: Any) -> Any:
        if self.state.t == 7:
            (images / "c0" / "3.jpg").unlink()
            (images / "c1" / "5.jpg").write_bytes(b"\xff\xd8\xff")
        return step(self, *args)

    monkeypatch.setattr(fake.Trainer, "step", losing)
    fake.train(images, tmp_path / "run", "--num_workers", "1")
    said = capsys.readouterr().out
    assert said.count(f"{images}/c0/3.jpg: No such file or directory") == 1
    assert said.count(f"{images}/c1/5.jpg: ") == 1
    assert last(tmp_path / "run").step == 28
    assert sum(line["skipped"] for line in metrics(tmp_path / "run")) >= 4


@pytest.mark.parametrize("broken", ["loss", "grad_norm"])
def test_a_loss_that_is_not_finite_leaves_a_report_and_no_checkpoint(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    step = fake.Trainer.step

    def breaks(self: fake.Trainer, *args: Any) -> Any:
        outcome = dict(step(self, *args))
        if self.state.t == 13:
            outcome[broken] = np.float32("nan" if broken == "loss" else "inf")
        return outcome

    monkeypatch.setattr(fake.Trainer, "step", breaks)
    file = tmp_path / "nan_reports" / "step-00000013.json"
    with pytest.raises(TrainError, match=f"step 13: the .* is (nan|inf); nothing was saved .* details in {file}"):
        fake.train(images, tmp_path, "--print_freq", "100")
    assert last(tmp_path).step == 7
    report = json.loads(file.read_text())
    assert (report["step"], report["positions"]) == (13, [144, 156])
    assert report[broken] == ("nan" if broken == "loss" else "inf")
    assert report["checkpoint"] == str(tmp_path / "checkpoints" / "step-00000007")
    assert [update["step"] for update in report["updates"]][-7:] == [7, 8, 9, 10, 11, 12, 13]
    assert len(set(report["items"])) == 12
    assert set(report["items"]) <= {str(path) for path in images.rglob("*.jpg")}


def test_a_source_that_hangs_is_named_and_does_not_hold_up_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tree(tmp_path / "images", classes=2, each=42)
    fifo = images / "c0" / "7.jpg"
    fifo.unlink()
    os.mkfifo(fifo)  # reading it blocks for ever, as on a dead network disk
    script = tmp_path / "impatient.py"
    script.write_text(
        "import sys; from train.data import pipeline; from tests.train import fake\n"
        "pipeline.STALLED = 0.3\nsys.exit(fake.main(sys.argv[1:]))\n"
    )
    words = [sys.executable, "-u", str(script), str(images), str(tmp_path / "run"), "--save_every_steps", "1"]
    file, environment = tmp_path / "log", {**os.environ, "PYTHONPATH": str(ROOT)}
    with file.open("w") as log, subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=log) as process:
        try:
            assert _soon(lambda: file.read_text().count("no batch for ") == 2)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 75
        finally:
            process.kill()
    said = file.read_text()
    assert f"waits for images of --data_path {images}, starting at {images}/c" in said
    assert "train: stopped by SIGTERM after step " in said


def test_patience_is_half_a_minute() -> None:
    assert pipeline.STALLED == 30
