"""SLURM on this machine alone: its daemons for two nodes, configured in a folder of the tests.

Nothing is installed and nothing outside the folder is touched. On Debian:
apt-get install slurm-wlm munge
"""

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scancel", "scontrol", "squeue")
NODES = ("n1", "n2")

CONFIGURATION = """\
ClusterName=sandbox
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/linear
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2
KillWait=20
ReturnToService=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""

# Debian's slurmd asks for a cgroup plugin even where no other plugin uses one.
CGROUPS = """\
CgroupPlugin=cgroup/v1
CgroupMountpoint={folder}/cgroup
"""


def obstacle() -> str | None:
    """The reason why SLURM cannot run here, if there is one."""
    path = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))
    missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "SLURM's daemons need root"


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which SLURM's commands find the daemons; they end with the block."""
    ports = [_free_port() for _ in range(3)]
    values = {"folder": folder, "host": socket.gethostname(), "ports": ports}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**values))
    (folder / "cgroup.conf").write_text(CGROUPS.format(**values))
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    environment = os.environ | {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin")),
    }
    places = {"key-file": key, "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log"}
    places["seed-file"] = "munge.seed"
    munge = [f"--{name}={folder / place}" for name, place in places.items()]
    daemons = []
    try:
        for words in (["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"], *_nodes()):
            with (folder / f"{'-'.join(words[:1] + words[2:3])}.out").open("w") as log:
                daemons.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))
            time.sleep(1)
        _wait_for_nodes(environment)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(20)


def _nodes() -> list[list[str]]:
    return [["slurmd", "-N", node, "-D"] for node in NODES]


def _wait_for_nodes(environment: dict[str, str]) -> None:
    deadline = time.monotonic() + 60
    while True:
        words = ["sinfo", "--noheader", "--format=%T %D"]
        said = subprocess.run(words, env=environment, capture_output=True, text=True).stdout.split()
        if said == ["idle", "2"]:
            return
        assert time.monotonic() < deadline, said
        time.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
