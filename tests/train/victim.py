"""A run in a process of its own, to be killed or signalled."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from tests.project.tree import ROOT

PATIENCE = 120.0


class Victim:
    """`python -m words...`, killed at the end of the block if it still runs."""

    def __init__(self, *words: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def wait_for(self, condition: Callable[[], object]) -> bool:
        """Whether the condition came true before the process ended."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None:
                return bool(condition())
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.0005)
        return True

    def send(self, name: str) -> None:
        """Send a signal by its name."""
        self.process.send_signal(getattr(signal, name))

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and the output."""
        said, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said


def saved(run_dir: Path) -> Sequence[str]:
    """The names of the checkpoints of a run, oldest first."""
    return sorted(path.name for path in run_dir.glob("checkpoints/step-*"))


def writing(run_dir: Path) -> bool:
    """Whether a checkpoint is being written, or was when its writer died."""
    return any(run_dir.glob("checkpoints/.writing-*"))
