"""Disks that are full or read-only: mounts in a namespace, which only the test's processes see."""

import subprocess
import sys
from pathlib import Path

from tests.project.tree import ROOT


def _allowed() -> bool:
    try:
        return (
            subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode
            == 0
        )
    except OSError:
        return False


ALLOWED = _allowed()


def bash(script: str, **places: Path) -> subprocess.CompletedProcess[str]:
    """Run a script that may mount; $python runs this interpreter, and `places` are variables."""
    variables = {name: str(place) for name, place in places.items()} | {"python": sys.executable}
    prefix = "".join(f"{name}={value!r}\n" for name, value in variables.items())
    command = ["unshare", "-rm", "bash", "-euc", prefix + script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
