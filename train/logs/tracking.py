"""Logging to Weights & Biases (--wandb)."""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from train.errors import TrainError


class Tracker:
    """A Weights & Biases run, resumed by the id that the run directory keeps.

    A later failure, such as a lost network, costs one line; training continues.
    """

    def __init__(self, project: str, run_dir: Path, config: Mapping[str, Any], say: Callable[[str], None]) -> None:
        """TrainError if wandb is not installed or refuses the project."""
        try:
            import wandb
        except ImportError:
            raise TrainError("--wandb: Weights & Biases is not installed; pip install 'twinnext[wandb]'") from None
        settings = {"project": project, "id": _id(run_dir), "resume": "allow", "name": run_dir.name}
        try:
            self.run: Any = wandb.init(**settings, dir=str(run_dir), config=dict(config))
        except Exception as error:
            raise TrainError(f"--wandb {project}: {' '.join(str(error).split())}") from None
        self.say = say

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of an update."""
        self._try(lambda run: run.log(dict(values), step=step))

    def close(self, failed: bool) -> None:
        """Finish the run."""
        self._try(lambda run: run.finish(exit_code=int(failed)))

    def _try(self, do: Callable[[Any], object]) -> None:
        if self.run is None:
            return
        try:
            do(self.run)
        except Exception as error:
            self.run = None
            self.say(f"--wandb: logging stopped: {' '.join(str(error).split())}; metrics.jsonl has everything")


def _id(run_dir: Path) -> str:
    """The id of the run, kept in the run directory."""
    file = run_dir / "wandb_id"
    if not file.exists():
        file.write_text(secrets.token_hex(4), encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()
