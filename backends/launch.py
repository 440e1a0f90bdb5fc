"""Rank, world size and address of this process, from torchrun's or SLURM's environment."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from backends.protocol import BackendError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""The variables that torchrun sets for each process."""

PORTS = range(20_000, 32_000)
"""Below the range of ephemeral ports."""


class Place(NamedTuple):
    """Rank, number of processes, local rank, and the address and port of process 0."""

    rank: int
    processes: int
    local_rank: int
    address: str
    port: int


def place(environ: Mapping[str, str]) -> Place | None:
    """The place of this process, or None if it is the only one; BackendError if variables are missing.

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


def environment(place: Place) -> dict[str, str]:
    """A place as environment variables of both frameworks: torchrun's, and those that JAX reads."""
    rank, processes, local_rank, address, port = map(str, place)
    variables = dict(zip(NAMES, (rank, processes, local_rank, address, port), strict=True))
    jax = ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES", "JAX_COORDINATOR_ADDRESS")
    return variables | dict(zip(jax, (rank, processes, f"{address}:{port}"), strict=True))


def port(job: str) -> int:
    """A port derived from the job's number: the same in all its processes, different for most jobs."""
    return PORTS[int(re.sub(r"\D", "", job) or 0) % len(PORTS)]


def first_host(nodes: str) -> str:
    """The first of a list of hosts as SLURM writes it: "gpu[07-09,12],cpu1" -> "gpu07"."""
    opened = re.sub(r"\[(\d+)[^\]]*\]", r"\1", nodes)
    return opened.split(",")[0]


def _of_slurm(environ: Mapping[str, str]) -> dict[str, str]:
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST")
    variables = {
        "RANK": environ.get("SLURM_PROCID"),
        "WORLD_SIZE": environ["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environ.get("SLURM_LOCALID"),
        "MASTER_ADDR": environ.get("MASTER_ADDR") or (nodes and first_host(nodes)),
        "MASTER_PORT": environ.get("MASTER_PORT") or str(port(environ.get("SLURM_JOB_ID", ""))),
    }
    return {name: value for name, value in variables.items() if value}


def _read(environ: Mapping[str, str]) -> Place:
    missing = [name for name in NAMES if name not in environ]
    if missing:
        there = ", ".join(name for name in NAMES if name in environ)
        raise BackendError(
            f"{', '.join(missing)}: not in the environment beside {there}; start several processes with torchrun or"
            " srun, or unset these variables"
        )
    try:
        rank, processes, local_rank, port = (int(environ[name]) for name in NAMES if name != "MASTER_ADDR")
    except ValueError:
        shown = ", ".join(f"{name}={environ[name]}" for name in NAMES)
        raise BackendError(f"environment: {shown}: all but MASTER_ADDR must be whole numbers") from None
    if not 0 <= rank < processes:
        raise BackendError(f"environment: RANK={rank} is not below WORLD_SIZE={processes}")
    return Place(rank, processes, local_rank, environ["MASTER_ADDR"], port)
