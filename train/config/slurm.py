"""SLURM: a run submitted through submitit, and queued again by itself after preemption or at its time limit.

submitit writes the batch script and starts a process for each GPU. That process then becomes
`python -m train ...`: it, and not submitit, hears the signals of SLURM, so that all processes
save the same update (train/loop.py) before process 0 asks for the job to be queued again.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

from backends import launch
from train.config import Config
from train.errors import TrainError

WARNING = 120
"""Seconds before its time limit in which a job hears of it."""

LINGER = 60
"""Seconds after the end of one process in which the others have to end by themselves."""


@dataclass(frozen=True)
class Command:
    """What each process of a job does: it becomes `python -m train` with these words."""

    words: tuple[str, ...]

    def __call__(self) -> NoReturn:
        import submitit

        job = submitit.JobEnvironment()
        address = os.environ.get("MASTER_ADDR") or job.hostnames[0]
        port = int(os.environ.get("MASTER_PORT") or launch.port(job.job_id))
        os.environ |= launch.announced(launch.Place(job.global_rank, job.num_tasks, job.local_rank, address, port))
        for name in (signal.SIGUSR1, signal.SIGUSR2):  # not deadly until the run listens to them
            signal.signal(name, signal.SIG_IGN)
        os.execv(sys.executable, [sys.executable, "-u", "-m", "train", *self.words])


def submit(config: Config, words: Sequence[str], cluster: str = "slurm") -> str:
    """Submit a command line; returns a line about the job. TrainError where that cannot be."""
    if importlib.util.find_spec("submitit") is None:
        raise TrainError("--slurm True: submitit is not installed; pip install 'twinnext[slurm]'")
    if cluster == "slurm" and not (shutil.which("srun") and shutil.which("sbatch")):
        raise TrainError("--slurm True: there is no srun or sbatch here; submit from a machine of the cluster")
    import submitit

    folder = _shared(config.run_dir) / "slurm"
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(**_asked(config))
    try:
        with redirect_stderr(StringIO()):  # sbatch's words, which are in the error too
            job = executor.submit(Command((*words, "--slurm", "False", "--output_dir", str(folder.parent))))
    except (RuntimeError, OSError) as error:
        raise TrainError(f"--slurm True: the job was refused: {' '.join(str(error).split())}") from None
    images = config.effective_batch * config.slurm.nodes * config.slurm.ngpus
    return (
        f"job {job.job_id}: {config.slurm.nodes} x {config.slurm.ngpus} processes, {images:,} images an update;"
        f" its words are in {job.paths.stdout}"
    )


def requeue(environ: Mapping[str, str]) -> str | None:
    """Have process 0 put its own job back into the queue, where SLURM allows it; a line about that.

    Not a job that is ending anyway: one that the user cancels gets the same signal as one that is preempted.
    """
    job = environ.get("SLURM_JOB_ID")
    if job is None or environ.get("SLURM_PROCID") != "0" or "SLURM_STEP_ID" not in environ:
        return None
    told = _scontrol("show", "job", job) or ""
    if not {"JobState=RUNNING", "Requeue=1", "BatchFlag=1"} <= set(told.split()):
        return None
    queued = _scontrol("requeue", job) is not None
    return f"job {job} is queued again" if queued else f"SLURM has refused to queue job {job} again"


def _asked(config: Config) -> dict[str, Any]:
    """What submitit is to ask of SLURM: as the released scripts do, but for names of their cluster."""
    return {
        "name": "twinnext",
        "nodes": config.slurm.nodes,
        "tasks_per_node": config.slurm.ngpus,
        "gpus_per_node": None if config.run.device == "cpu" else config.slurm.ngpus,
        "cpus_per_task": config.slurm.cpus_per_task,
        "mem_gb": config.slurm.mem_gb,
        "timeout_min": config.slurm.timeout,
        "stderr_to_stdout": True,
        "slurm_partition": config.slurm.partition,
        "slurm_constraint": config.slurm.constraint,
        "slurm_comment": config.slurm.comment,
        "slurm_signal_delay_s": WARNING,
        "slurm_additional_parameters": {"requeue": True},
        "slurm_srun_args": [f"--wait={LINGER}"],
    }


def _shared(run_dir: Path) -> Path:
    """The run directory, made; TrainError where it cannot be written, or other machines surely do not see it."""
    if "%" in str(run_dir):
        raise TrainError(f"--job_dir {run_dir}: the same for every job of a run, so without %j")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / ".writable").touch()
        (run_dir / ".writable").unlink()
    except OSError as error:
        raise TrainError(f"--job_dir {run_dir}: cannot be written: {error.strerror}") from None
    if _in_memory(run_dir):
        raise TrainError(
            f"--job_dir {run_dir}: in the memory of this machine, where no other sees it; give a shared one"
        )
    return run_dir.absolute()


def _in_memory(folder: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    lines = mounts.read_text().splitlines() if mounts.exists() else []
    kinds = {Path(line.split()[1]): line.split()[2] for line in lines}
    at = next((place for place in (folder.resolve(), *folder.resolve().parents) if place in kinds), None)
    return at is not None and kinds[at] in ("tmpfs", "ramfs")


def _scontrol(*words: str) -> str | None:
    """What scontrol answers; None where it fails."""
    try:
        done = subprocess.run(("scontrol", *words), capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout
