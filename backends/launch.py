"""Where a process of several stands, as torchrun or SLURM's srun say in the environment."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from backends.protocol import BackendError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets for each process that it starts."""

PORTS = range(20_000, 32_000)
"""Below those that systems hand out by themselves."""


class Place(NamedTuple):
    """A process among all, and among those of its machine; and where process 0 waits for the others."""

    rank: int
    processes: int
    local_rank: int
    address: str
    port: int


def place(environ: Mapping[str, str]) -> Place | None:
    """The place of this process, or None where it is alone; BackendError for half a description.

    torchrun's variables come first. Under srun, MASTER_ADDR and MASTER_PORT may replace the name of the
    first node and the port that is derived from the job's number.
    """
    if "RANK" in environ or "WORLD_SIZE" in environ:
        found = _read(environ)
    elif int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:  # of srun, not of the batch script around it
        found = _read(_of_slurm(environ))
    else:
        return None
    return found if found.processes > 1 else None


def announced(place: Place) -> dict[str, str]:
    """The environment that tells both frameworks of a place: torchrun's variables, and those that JAX reads."""
    rank, processes, local_rank, address, port = map(str, place)
    told = dict(zip(NAMES, (rank, processes, local_rank, address, port), strict=True))
    jax = ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES", "JAX_COORDINATOR_ADDRESS")
    return told | dict(zip(jax, (rank, processes, f"{address}:{port}"), strict=True))


def port(job: str) -> int:
    """The same port for all processes of a job, and for most jobs another."""
    return PORTS[int(re.sub(r"\D", "", job) or 0) % len(PORTS)]


def first_host(nodes: str) -> str:
    """The first of a list of hosts as SLURM writes it: "gpu[07-09,12],cpu1" -> "gpu07"."""
    opened = re.sub(r"\[(\d+)[^\]]*\]", r"\1", nodes)
    return opened.split(",")[0]


def _of_slurm(environ: Mapping[str, str]) -> dict[str, str]:
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST")
    told = {
        "RANK": environ.get("SLURM_PROCID"),
        "WORLD_SIZE": environ["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environ.get("SLURM_LOCALID"),
        "MASTER_ADDR": environ.get("MASTER_ADDR") or (nodes and first_host(nodes)),
        "MASTER_PORT": environ.get("MASTER_PORT") or str(port(environ.get("SLURM_JOB_ID", ""))),
    }
    return {name: value for name, value in told.items() if value}


def _read(environ: Mapping[str, str]) -> Place:
    missing = [name for name in NAMES if name not in environ]
    if missing:
        there = ", ".join(name for name in NAMES if name in environ)
        raise BackendError(
            f"{', '.join(missing)}: not in the environment beside {there}; start several processes with torchrun or"
            " srun, or unset what is there"
        )
    try:
        rank, processes, local_rank, port = (int(environ[name]) for name in NAMES if name != "MASTER_ADDR")
    except ValueError:
        shown = ", ".join(f"{name}={environ[name]}" for name in NAMES)
        raise BackendError(f"environment: {shown}: all but MASTER_ADDR must be whole numbers") from None
    if not 0 <= rank < processes:
        raise BackendError(f"environment: RANK={rank} is not below WORLD_SIZE={processes}")
    return Place(rank, processes, local_rank, environ["MASTER_ADDR"], port)
