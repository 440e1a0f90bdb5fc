"""The checkpoints of a run: save, keep the newest few, find the newest intact one.

checkpoints/step-00000840/    a checkpoint, in the format of `convert.containers.run`
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backends.protocol import State
from convert import ConvertError, files
from convert.containers import run
from convert.containers.run import Damaged, RunCheckpoint
from train.errors import TrainError


def save(root: Path, step: int, state: State, meta: Mapping[str, Any], keep: int) -> Path:
    """Write root/step-XXXXXXXX, delete all but the newest `keep` checkpoints up to it, and return its path.

    TrainError if the state is not finite or cannot be written, for instance on a full disk; older
    checkpoints are then unchanged and nothing of the new one remains.
    """
    path = root / run.name_of(step)
    try:
        run.save(path, step, state, meta)
        before = [old for number, old in run.steps(root) if number < step]
        for old in before[keep - 1 :]:
            files.discard(old)
    except ConvertError as error:
        raise TrainError(f"{path}: not written: {error}") from None
    except OSError as error:
        raise TrainError(f"{path}: cannot be written: {error.strerror or error}") from None
    return path


def newest(root: Path, report: Callable[[str], None]) -> RunCheckpoint | None:
    """The newest intact checkpoint below root; reports a line for each damaged one. Damaged if none is intact.

    Also removes what killed processes left, so no other process may be writing.
    """
    files.sweep(root)
    steps = run.steps(root)
    for _, path in steps:
        try:
            return run.load(path)
        except Damaged as error:
            report(f"{error}; falling back to the previous checkpoint")
    if steps:
        raise Damaged(f"{root}: no checkpoint is intact; start again in another --output_dir")
    return None
