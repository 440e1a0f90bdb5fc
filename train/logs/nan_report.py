"""The report that a run writes when a loss or gradient is not finite."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from train.logs.metrics import Update


def write(run_dir: Path, updates: Iterable[Update], first: Update, details: dict[str, Any]) -> Path:
    """Write nan_reports/step-XXXXXXXX.json, named after the first such update; OSError if that fails.

    step, lr, loss, grad_norm    of that update
    broken_images                a line for each image of it that could not be read
    updates                      step, lr, loss and grad_norm of the updates around it
    details                      merged in: the samples of the update, and the checkpoint before it
    """
    file = run_dir / "nan_reports" / f"step-{first.step:08d}.json"
    file.parent.mkdir(exist_ok=True)
    content = {**_numbers(first), "broken_images": first.broken, **details, "updates": [_numbers(u) for u in updates]}
    file.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    return file


def _numbers(update: Update) -> dict[str, Any]:
    """Step, lr, loss and grad_norm, as strings where they are not finite: JSON has no NaN."""
    numbers = {"lr": update.lr, "loss": update.loss, "grad_norm": update.grad_norm}
    return {"step": update.step, **{name: n if math.isfinite(n) else str(n) for name, n in numbers.items()}}
