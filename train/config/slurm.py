"""SLURM: submit a run through submitit; it requeues itself after preemption or at its time limit.

submitit writes the batch script and starts one process per GPU, which replaces itself by
`python -m train ...`. So the run, not submitit, receives the signals of SLURM, and all processes
save the same update (train/loop.py) before process 0 requeues the job.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

from backends import launch
from train.config import Config
from train.errors import TrainError, writing

WARNING = 120  # seconds before its time limit at which SLURM signals a job
LINGER = 60  # seconds after the end of one process within which the others must end, too


def execute(*words: str) -> NoReturn:
    """In each process of a job: exec `python -m train` with these words."""
    import submitit

    job = submitit.JobEnvironment()
    address = os.environ.get("MASTER_ADDR") or job.hostnames[0]
    port = int(os.environ.get("MASTER_PORT") or launch.port(job.job_id))
    os.environ |= launch.environment(launch.Place(job.global_rank, job.num_tasks, job.local_rank, address, port))
    for name in (signal.SIGUSR1, signal.SIGUSR2):  # ignored until the run installs its handlers
        signal.signal(name, signal.SIG_IGN)
    os.execv(sys.executable, [sys.executable, "-u", "-m", "train", *words])


def submit(config: Config, words: Sequence[str], cluster: str = "slurm") -> str:
    """Submit a command line; return a line about the job. TrainError if that fails."""
    if importlib.util.find_spec("submitit") is None:
        raise TrainError("--slurm True: submitit is not installed; pip install 'twinnext[slurm]'")
    if cluster == "slurm" and not (shutil.which("srun") and shutil.which("sbatch")):
        raise TrainError("--slurm True: there is no srun or sbatch here; submit from a machine of the cluster")
    import submitit

    folder = _make_shared(config.run_dir) / "slurm"
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(**_parameters(config))
    try:
        with redirect_stderr(StringIO()):  # sbatch's message, which the error repeats
            place = ("--output_dir", str(folder.parent)) if "output_dir" in config.used_flags() else ()
            job = executor.submit(execute, *words, "--slurm", "False", *place)
    except (RuntimeError, OSError) as error:
        raise TrainError(f"--slurm True: the job was refused: {' '.join(str(error).split())}") from None
    images = config.effective_batch * config.slurm.nodes * config.slurm.ngpus
    return (
        f"job {job.job_id}: {config.slurm.nodes} x {config.slurm.ngpus} processes, {images:,} images per update;"
        f" its output is in {job.paths.stdout}"
    )


def requeue(environ: Mapping[str, str]) -> str | None:
    """Requeue this job, in process 0 and if SLURM allows it; return a line about that, else None.

    Only a running job is requeued: one that the user cancels gets the same signal as a preempted one.
    """
    job = environ.get("SLURM_JOB_ID")
    if job is None or environ.get("SLURM_PROCID") != "0" or "SLURM_STEP_ID" not in environ:
        return None
    state = _scontrol("show", "job", job) or ""
    if not {"JobState=RUNNING", "Requeue=1", "BatchFlag=1"} <= set(state.split()):
        return None
    requeued = _scontrol("requeue", job) is not None
    return f"job {job} is requeued" if requeued else f"SLURM refused to requeue job {job}"


def _parameters(config: Config) -> dict[str, Any]:
    """Parameters for submitit: those of the released scripts, without the names of their cluster."""
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


def _make_shared(run_dir: Path) -> Path:
    """Make the run directory; TrainError if it cannot be written, or lies in this machine's memory."""
    if "%" in str(run_dir):
        raise TrainError(f"--job_dir {run_dir}: must be the same for every job of a run; leave out %j")
    with writing(f"--job_dir {run_dir}"):
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / ".writable").touch()
        (run_dir / ".writable").unlink()
    if _in_memory(run_dir):
        raise TrainError(
            f"--job_dir {run_dir}: is in the memory of this machine; give a folder that all machines share"
        )
    return run_dir.absolute()


def _in_memory(folder: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    lines = mounts.read_text().splitlines() if mounts.exists() else []
    kinds = {Path(line.split()[1]): line.split()[2] for line in lines}
    at = next((place for place in (folder.resolve(), *folder.resolve().parents) if place in kinds), None)
    return at is not None and kinds[at] in ("tmpfs", "ramfs")


def _scontrol(*words: str) -> str | None:
    """The output of scontrol; None if it fails."""
    try:
        done = subprocess.run(("scontrol", *words), capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout
