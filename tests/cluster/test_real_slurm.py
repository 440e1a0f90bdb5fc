"""A real SLURM, all of it on this machine: submission, preemption, requeueing and cancelling (`make slurm`)."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import backends
from tests.cluster import daemons, runs
from tests.train.images import tree

OBSTACLE = daemons.obstacle()
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE)),
]
EPOCHS = {"torch": 80, "jax": 80}
"""Five updates per epoch; long enough to be interrupted."""


class Slurm:
    """The commands of SLURM."""

    def __init__(self, environment: dict[str, str]) -> None:
        alone = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}  # n1 and n2 do not resolve
        self.environment = environment | alone

    def __call__(self, *words: str) -> str:
        done = subprocess.run(words, env=self.environment, cwd=runs.ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, words: list[str]) -> str:
        """The number of the job of a run, on two nodes."""
        asked = ["--slurm", "True", "--nodes", "2", "--ngpus", "1", "--cpus_per_task", "1", "--timeout", "60"]
        return re.match(r"job (\d+):", self(sys.executable, "-m", "train", *words, *asked))[1]

    def job(self, job: str) -> dict[str, str]:
        """The fields that scontrol shows of a job."""
        return dict(re.findall(r"(\w+)=(\S+)", self("scontrol", "show", "job", job)))

    def ended(self, job: str, state: str, patience: float = 400) -> dict[str, str]:
        """The same, once the job is in a state; a job that waits to be started again is released.

        A job that is being requeued is shown as failed for a while, so no other state is final.
        """
        deadline = time.monotonic() + patience
        while (record := self.job(job))["JobState"] != state:
            assert time.monotonic() < deadline, record
            if record["JobState"] == "PENDING" and record["Reason"] == "BeginTime":
                time.sleep(3)  # started in the second of its requeue, a job counts as revoked
                self("scontrol", "update", f"jobid={job}", "StartTime=now")
            time.sleep(1)
        return record


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with daemons.slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield Slurm(environment)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"), classes=2, each=20)


def words(backend: str, images: Path, run_dir: Path, batch: int) -> list[str]:
    flags = f"--batch_size {batch} --epochs {EPOCHS[backend]} --picture_freq 0 --backend {backend}"
    return runs.command(images, run_dir, flags)


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of one process, without SLURM."""
    place = tmp_path_factory.mktemp("undisturbed")

    def run_dir(backend: str) -> Path:
        if not (place / backend).exists():
            command = [sys.executable, "-m", "train", *words(backend, images, place / backend, 8)]
            subprocess.run(command, cwd=runs.ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
        return place / backend

    return run_dir


def started(slurm: Slurm, job: str, run_dir: Path) -> str:
    """The number of a job, once it has saved something."""
    deadline = time.monotonic() + 240
    while not list(run_dir.glob("checkpoints/step-*")):
        assert time.monotonic() < deadline, log(run_dir, job)
        assert slurm.job(job)["JobState"] in ("PENDING", "RUNNING"), log(run_dir, job)
        time.sleep(0.05)
    return job


def log(run_dir: Path, job: str) -> str:
    """The output of the processes of a job."""
    return "\n".join(file.read_text() for file in sorted(run_dir.glob(f"slurm/{job}_*_log.out")))


@pytest.mark.parametrize("backend", backends.installed())
@pytest.mark.parametrize("preempt", [("scancel", "--signal=USR1"), ("scontrol", "requeue")], ids=["warned", "requeued"])
def test_a_preempted_job_ends_with_the_weights_of_an_undisturbed_run(
    backend: str, preempt: tuple[str, ...], slurm: Slurm, images: Path, tmp_path: Path, undisturbed: Callable[..., Path]
) -> None:
    run_dir = tmp_path / "run"
    job = started(slurm, slurm.submit(words(backend, images, run_dir, 4)), run_dir)
    slurm(*preempt, job)
    record = slurm.ended(job, "COMPLETED")
    said = log(run_dir, job)
    assert record["Restarts"] == "1", said
    assert re.search(r"stopped by SIG(USR1|TERM) after step", said), said
    assert "resumed from" in said
    runs.assert_same_run(run_dir, undisturbed(backend))


@pytest.mark.parametrize("backend", backends.installed())
def test_a_batch_script_of_the_user_works_too(
    backend: str, slurm: Slurm, images: Path, tmp_path: Path, undisturbed: Callable[..., Path]
) -> None:
    run_dir, script = tmp_path / "run", tmp_path / "script.sh"
    command = [sys.executable, "-m", "train", *words(backend, images, run_dir, 4)]
    (run_dir / "slurm").mkdir(parents=True)
    script.write_text(
        "#!/bin/bash\n#SBATCH --nodes=2 --ntasks-per-node=1 --requeue --open-mode=append\n"
        f"#SBATCH --output={run_dir}/slurm/%j_0_log.out\n"
        f"export JAX_COORDINATOR_ADDRESS=127.0.0.1:{runs.free_port()}\n"
        f"srun --wait=60 {shlex.join(command)}\n"
    )
    job = re.match(r"Submitted batch job (\d+)", slurm("sbatch", str(script)))[1]
    slurm("scancel", "--signal=USR1", started(slurm, job, run_dir))
    assert slurm.ended(job, "COMPLETED")["Restarts"] == "1", log(run_dir, job)
    runs.assert_same_run(run_dir, undisturbed(backend))


@pytest.mark.parametrize("backend", backends.installed())
def test_a_cancelled_job_does_not_come_back(backend: str, slurm: Slurm, images: Path, tmp_path: Path) -> None:
    job = started(slurm, slurm.submit(words(backend, images, tmp_path, 4)), tmp_path)
    slurm("scancel", job)
    slurm.ended(job, "CANCELLED")
    time.sleep(30)  # as long as it may take to be killed and queued again
    record = slurm.job(job)
    assert (record["JobState"], record["Restarts"]) == ("CANCELLED", "0")
    assert "stopped by SIGTERM after step" in log(tmp_path, job)
