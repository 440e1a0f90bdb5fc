"""Submission to SLURM: the flags, the errors, and runs under submitit's local executor."""

import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.cluster import runs
from tests.train.images import tree
from train.__main__ import main
from train.config import slurm

pytest.importorskip("submitit")

RELEASED = (
    "--slurm True --nodes 8 --ngpus 8 --partition learn --timeout 4320 --comment paper --use_volta32"
    " --model convnextv2_base --batch_size 64 --data_path DATA --job_dir"
)
RUNNING = "JobId=12 JobState=RUNNING Requeue=1 BatchFlag=1"
STEP = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder where commands are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, script: str) -> None:
    """A fake command of SLURM."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def submitted(programs: Path, answer: str = "echo Submitted batch job 12") -> Path:
    """Where a submission leaves its batch script."""
    found = programs / "script"
    program(programs, "srun", "")
    program(programs, "sbatch", f"{shutil.which('cp', path=os.defpath)} $1 {shlex.quote(str(found))}\n{answer}")
    return found


def test_the_released_flags_reach_the_batch_script(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = submitted(programs)
    assert main([*RELEASED.split(), str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.startswith("job 12: 8 x 8 processes, 4,096 images per update; its output is in ")
    asked = {line.removeprefix("#SBATCH ") for line in found.read_text().splitlines() if line.startswith("#SBATCH")}
    assert asked >= {
        "--nodes=8",
        "--ntasks-per-node=8",
        "--gpus-per-node=8",
        "--cpus-per-task=10",
        "--time=4320",
        "--partition=learn",
        "--comment=paper",
        "--constraint=volta32gb",
        "--requeue",
        "--signal=USR2@120",
        "--open-mode=append",
    }
    assert " --wait=60 " in found.read_text()


def test_what_is_not_given_is_left_to_slurm(programs: Path, tmp_path: Path) -> None:
    found = submitted(programs)
    assert main(["--slurm", "True", "--device", "cpu", "--output_dir", str(tmp_path / "run")]) == 0
    for name in ("partition", "comment", "constraint", "mem", "gpus-per-node"):
        assert f"--{name}=" not in found.read_text()


def test_help_lists_the_flags_of_slurm_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    for words, shown in ([], False), (["--slurm", "True"], True), (["--slurm=1"], True):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        assert ("--partition NAME" in capsys.readouterr().out) is shown


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--ngpus 0", "--ngpus: 0 is below 1"),
        ("--nodes 0", "--nodes: 0 is below 1"),
        ("--timeout 1", "--timeout: 1 is below 5"),
        ("--job_dir runs/%j", "--job_dir runs/%j: must be the same for every job of a run; leave out %j"),
        ("--job_dir FILE/run", "--job_dir "),
        ("--partition nope", "--slurm True: the job was refused: "),
    ],
)
def test_a_mistake_is_one_line(
    flags: str, line: str, programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(programs, "echo invalid partition specified: nope >&2\nexit 1")
    (tmp_path / "file").write_text("")
    words = flags.replace("FILE", str(tmp_path / "file")).split()
    assert main(["--slurm", "True", "--output_dir", str(tmp_path / "run"), *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"train: {line}")
    assert said.count("\n") == 1
    if "nope" in flags:
        assert "invalid partition specified: nope" in said


@pytest.mark.usefixtures("programs")
def test_without_slurm_or_submitit_it_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--slurm", "True", "--output_dir", str(tmp_path / "run")]
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("train: --slurm True: there is no srun or sbatch here")
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main(words) == 2
    assert capsys.readouterr().err == "train: --slurm True: submitit is not installed; pip install 'twinnext[slurm]'\n"


def test_a_folder_in_memory_is_seen(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("disk / ext4 rw 0 0\nnfs /shared nfs rw 0 0\nnone /dev/shm tmpfs rw 0 0\n")
    assert slurm._in_memory(Path("/dev/shm/run"), mounts)
    assert not slurm._in_memory(Path("/shared/run"), mounts)
    assert not slurm._in_memory(Path("/dev/shm/run"), tmp_path / "absent")


@pytest.mark.parametrize(
    ("answer", "environment", "queued"),
    [
        (RUNNING, STEP, True),
        (RUNNING, STEP | {"SLURM_PROCID": "1"}, False),
        (RUNNING, {}, False),
        (RUNNING.replace("RUNNING", "CANCELLED"), STEP, False),
        (RUNNING.replace("Requeue=1", "Requeue=0"), STEP, False),
        (RUNNING.replace("BatchFlag=1", "BatchFlag=0"), STEP, False),
    ],
)
def test_only_a_running_batch_job_is_queued_again(
    answer: str, environment: dict[str, str], queued: bool, programs: Path
) -> None:
    asked = programs / "asked"
    program(programs, "scontrol", f"echo $@ >> {shlex.quote(str(asked))}\necho {answer}")
    assert slurm.requeue(environment) == ("job 12 is requeued" if queued else None)
    assert (asked.exists() and "requeue 12" in asked.read_text()) is queued


def test_a_refusal_of_scontrol_is_reported(programs: Path) -> None:
    assert slurm.requeue(STEP) is None
    program(programs, "scontrol", f"echo {RUNNING}; test $1 = show")
    assert slurm.requeue(STEP) == "SLURM refused to requeue job 12"


def submit_here(images: Path, run_dir: Path, flags: str) -> runs.Process:
    """A Python process that submits a job of two processes on this machine and waits for its end."""
    words = runs.command(images, run_dir, f"{flags} --slurm True --nodes 1 --ngpus 2")
    return runs.start(["-m", "tests.cluster.local", *words])


def test_a_job_is_a_run_and_resumes_when_it_is_submitted_again(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    images = tree(tmp_path / "images", classes=2, each=20)
    whole = runs.alone(images, tmp_path / "whole", "--batch_size 8 --epochs 32")
    run_dir, flags = tmp_path / "run", "--batch_size 4 --epochs 32"
    job = submit_here(images, run_dir, flags)
    deadline = time.monotonic() + 120
    while not list(run_dir.glob("checkpoints/step-*")):
        assert time.monotonic() < deadline
        assert job.poll() is None, job.communicate()
        time.sleep(0.01)
    (log,) = run_dir.glob("slurm/*_0_log.out")
    os.kill(int(log.name.partition("_")[0]), signal.SIGTERM)  # submitit passes it on to both
    ((status, said),) = runs.ended([job])
    assert status == 0, said
    assert "stopped by SIGTERM after step" in log.read_text()
    assert runs.last(run_dir).step < 160
    ((status, said),) = runs.ended([submit_here(images, run_dir, flags)])
    assert status == 0, said
    runs.assert_same_run(run_dir, whole)
