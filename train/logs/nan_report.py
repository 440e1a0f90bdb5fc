"""What a run leaves behind when a loss is no number."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from train.logs.metrics import Update


def write(run_dir: Path, updates: Iterable[Update], first: Update, about: dict[str, Any]) -> Path:
    """evidence/step-XXXXXXXX.json, named after the first update that broke; OSError where it cannot be written.

    step, lr, loss, grad_norm    of that update
    updates                      the same of those around it
    about                        the samples of the update, and the checkpoint before it
    """
    file = run_dir / "evidence" / f"step-{first.step:08d}.json"
    file.parent.mkdir(exist_ok=True)
    told = {**_told(first), "broken_images": first.broken, **about, "updates": [_told(update) for update in updates]}
    file.write_text(json.dumps(told, indent=1, allow_nan=False), encoding="utf-8")
    return file


def _told(update: Update) -> dict[str, Any]:
    numbers = {"lr": update.lr, "loss": update.loss, "grad_norm": update.grad_norm}
    return {"step": update.step, **{name: _number(value) for name, value in numbers.items()}}


def _number(value: float) -> float | str:
    """JSON has no NaN."""
    return value if math.isfinite(value) else str(value)
