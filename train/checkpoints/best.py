"""The best checkpoints of a run, by accuracy, beside the newest ones."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.protocol import State
from convert import files
from train.checkpoints import store

SCORES = ("acc1", "acc1_ema")


class BestCheckpoints:
    """Folders best_acc1/ and, for the EMA, best_acc1_ema/, each with the one checkpoint of the highest score."""

    def __init__(self, run_dir: Path) -> None:
        """Read the scores so far from metrics.jsonl, which must already be truncated to where the run resumes.

        Also removes what killed processes left, so no other process may be writing.
        """
        self.run_dir = run_dir
        for name in SCORES:
            files.sweep(run_dir / f"best_{name}")
        lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        self.scores = {name: max((line[name] for line in lines if name in line), default=-1.0) for name in SCORES}

    def improved(self, scores: Mapping[str, float]) -> list[str]:
        """The names of the scores that are higher than all before."""
        return [name for name in SCORES if name in scores and scores[name] > self.scores[name]]

    def save(self, step: int, scores: Mapping[str, float], state: State, meta: Mapping[str, Any]) -> None:
        """Save the state for each score that has improved. A score counts only once its checkpoint is saved."""
        for name in self.improved(scores):
            root = self.run_dir / f"best_{name}"
            kept = store.save(root, step, state, {**meta, "scores": dict(scores)}, keep=1)
            for other in set(root.glob("step-*")) - {kept}:  # even one of a later step, from an earlier run
                shutil.rmtree(other)
            self.scores[name] = scores[name]
