"""Resuming a run: which checkpoint, and whether it belongs to the same run."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import spec
from backends.protocol import Cluster
from convert import ConvertError
from convert.containers import run as run_format
from convert.containers.run import RunCheckpoint
from train.checkpoints import store
from train.config import Config
from train.config.config import FLAGS
from train.data.sources import Source
from train.errors import TrainError

COMPARED = ("data", "optimizer", "finetune", "augment")
"""Groups of flags of which a change is reported."""

FREE = ("data_path", "num_workers", "worker_type", "batch_size", "update_freq")
"""Flags whose change is not reported: they change no result, or the identity has what matters of them."""


def identity(config: Config, task: str, model: spec.Model, source: Source) -> dict[str, Any]:
    """What must be equal to resume: it decides the arrays of a state, and which sample has which position."""
    return {
        "task": task,
        "model": json.loads(json.dumps(asdict(model))),
        "seed": config.run.seed,
        "effective_batch": config.effective_batch,
        "images": len(source),
        "fingerprint": source.fingerprint,
    }


def find(config: Config, own: Mapping[str, Any], cluster: Cluster, say: Callable[[str], None]) -> RunCheckpoint | None:
    """The checkpoint to resume from, if any, with a line for each flag that has changed.

    own: the identity of this run. TrainError if the checkpoint has another one.
    """
    if config.checkpoints.resume:
        found: RunCheckpoint | None = _asked_for(Path(config.checkpoints.resume))
    else:
        found = _newest(config.run_dir / "checkpoints", cluster, say) if config.checkpoints.auto_resume else None
    if found is not None:
        _refuse_another(found, own, config)
        _report_changes(found, config, say)
    return found


def _asked_for(path: Path) -> RunCheckpoint:
    """The checkpoint of --resume; TrainError if it cannot be read."""
    try:
        return run_format.load(path)
    except ConvertError as error:
        raise TrainError(f"--resume {error}") from None


def _newest(root: Path, cluster: Cluster, say: Callable[[str], None]) -> RunCheckpoint | None:
    """The newest intact checkpoint. Only process 0 searches, and removes what a killed run left behind."""
    found = store.newest(root, say) if cluster.rank == 0 else None
    step = int(cluster.all_reduce_sum(np.array([found.step + 1 if found else 0]))[0]) - 1
    return found if cluster.rank == 0 or step < 0 else run_format.load(store.path_of(root, step))


def _refuse_another(found: RunCheckpoint, own: Mapping[str, Any], config: Config) -> None:
    theirs = found.meta.get("identity", {})
    devices = f" x {config.devices} devices" if config.devices > 1 else ""
    lines = {
        "task": "--task {own}: the run began with {theirs}",
        "seed": "--seed {own}: the run began with {theirs}",
        "effective_batch": f"--batch_size x --update_freq{devices}: {{own}} images per update, the run began with"
        f" {{theirs}}, {_matching_flags(theirs.get('effective_batch'), config)}",
        "images": "--data_path: the data has {own} images now, the run began with {theirs}",
        "fingerprint": "--data_path: the data is not what the run began with, or its files were renamed",
    }
    if theirs.get("model") != own["model"]:
        difference = _first_difference(theirs.get("model"), own["model"])
        raise TrainError(f"{found.path}: a checkpoint of another model ({difference}); give another --output_dir")
    for key, line in lines.items():
        if theirs.get(key) != own[key]:
            reason = line.format(own=own[key], theirs=theirs.get(key))
            raise TrainError(f"{reason}; give the same again, or another --output_dir ({found.path})")


def _matching_flags(images: Any, config: Config) -> str:
    """Flags that give this many images per update on the present devices, in a micro-batch that is no larger."""
    if not isinstance(images, int) or images % config.devices:
        return f"which {config.devices} devices cannot divide evenly"
    share = images // config.devices
    batch = max(size for size in range(1, min(share, config.optimizer.batch_size) + 1) if share % size == 0)
    return f"as --batch_size {batch} --update_freq {share // batch} would be"


def _first_difference(theirs: Any, own: Mapping[str, Any], prefix: str = "") -> str:
    """The first field in which two models, as nested dicts, differ."""
    if not isinstance(theirs, dict):
        return f"{prefix}{theirs} there, {own} here"
    for name, value in own.items():
        if theirs.get(name) != value:
            if isinstance(value, dict):
                return _first_difference(theirs.get(name), value, f"{prefix}{name}.")
            return f"{prefix}{name} {theirs.get(name)} there, {value} here"
    return "it has fields that this version does not know"


def _report_changes(found: RunCheckpoint, config: Config, say: Callable[[str], None]) -> None:
    before, now = found.meta.get("config", {}), config.as_dict()
    for name in (name for name, flag in FLAGS.items() if flag.group in COMPARED):
        if name not in FREE and name in before and before[name] != now[name]:
            say(f"note: --{name} is {now[name]}, the run began with {before[name]}")
