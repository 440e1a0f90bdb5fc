"""The best checkpoints of a run, by accuracy, kept apart from the newest."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.protocol import State
from train.checkpoints import store

JUDGED = ("acc1", "acc1_ema")


class Best:
    """A folder best_acc1/ (and best_acc1_ema/, for the average) with the one checkpoint that scored highest."""

    def __init__(self, run_dir: Path) -> None:
        """The scores so far are those in metrics.jsonl, once it ends where the run goes on."""
        self.run_dir = run_dir
        self.scores = _reached(run_dir / "metrics.jsonl")

    def raised(self, scores: Mapping[str, float]) -> list[str]:
        """The names of the scores that are higher than all before."""
        return [name for name in JUDGED if name in scores and scores[name] > self.scores.get(name, -1.0)]

    def keep(self, step: int, scores: Mapping[str, float], state: State, meta: Mapping[str, Any]) -> None:
        """Keep the state wherever it scores higher than all before; what cannot be kept was not reached."""
        for name in self.raised(scores):
            self._keep(self.run_dir / f"best_{name}", step, state, {**meta, "scores": dict(scores)})
            self.scores[name] = scores[name]

    def _keep(self, root: Path, step: int, state: State, meta: Mapping[str, Any]) -> None:
        """The new one is whole before the old one goes, even one of a later step that a run left behind."""
        kept = store.save(root, step, state, meta, keep=1)
        for other in root.glob("step-*"):
            if other != kept:
                shutil.rmtree(other)


def _reached(metrics: Path) -> dict[str, float]:
    """The highest of each score."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    found = {name: [line[name] for line in lines if name in line] for name in JUDGED}
    return {name: max(values) for name, values in found.items() if values}
