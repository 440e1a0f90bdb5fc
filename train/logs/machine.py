"""A description of this machine, and of the packages on it, for config.toml and checkpoints."""

import os
import platform
import re
from collections import Counter
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

CPUS = Path("/proc/cpuinfo")
NVIDIA = Path("/proc/driver/nvidia/gpus")
VERSIONED = ("twinnext", "torch", "jax", "flax", "optax", "numpy", "pillow", "simplejpeg")


def describe(devices: int = 1) -> str:
    """One line: processor, cores, system, NVIDIA GPUs, e.g. "AMD EPYC 9B14, 16 cores, Linux x86_64, 8 x NVIDIA H100".

    devices: number of devices that share an update, over all machines.
    """
    cores = f"{os.cpu_count()} cores"
    gpus = Counter(re.findall(r"^Model:\s*(.+)$", _text(NVIDIA.glob("*/information")), re.MULTILINE))
    parts = [processor(), cores, f"{platform.system()} {platform.machine()}"]
    parts += [f"{count} x {name}" for name, count in sorted(gpus.items())]
    return ", ".join(parts) + (f"; {devices} devices share an update" if devices > 1 else "")


def versions() -> str:
    """Versions of the packages that affect the numbers, e.g. "python 3.11.7, torch 2.13.0, numpy 2.4.6"."""
    found = {distribution.metadata["Name"]: distribution.version for distribution in metadata.distributions()}
    return ", ".join([f"python {platform.python_version()}", *(f"{n} {found[n]}" for n in VERSIONED if n in found)])


def processor() -> str:
    """The name of the processor."""
    named = re.search(r"^model name\s*: (.+)$", _text([CPUS]), re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()


def _text(files: Iterable[Path]) -> str:
    return "\n".join(file.read_text(errors="replace") for file in files if file.is_file())
