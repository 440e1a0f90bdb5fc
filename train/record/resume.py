"""Going on where a run stopped: which checkpoint, and whether it is of the same run."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

import spec
from backends.protocol import Cluster
from train.command.config import AugmentFlags, Config, DataFlags, FinetuneFlags, OptimizerFlags
from train.data.sources import Source
from train.errors import TrainError
from train.record import checkpoint
from train.record.checkpoint import Checkpoint

COMPARED = (DataFlags, OptimizerFlags, FinetuneFlags, AugmentFlags)
"""Groups of flags of which a change is reported."""

FREE = ("data_path", "num_workers", "worker_type", "batch_size", "update_freq")
"""Flags that may change without a word: they change no result, or what matters of them is in the identity."""


def identity(config: Config, task: str, model: spec.Model, source: Source) -> dict[str, Any]:
    """What makes two runs one: on it depend the arrays of a state, and which sample is at which position."""
    return {
        "task": task,
        "model": json.loads(json.dumps(asdict(model))),
        "seed": config.seed,
        "effective_batch": config.effective_batch,
        "images": len(source),
        "fingerprint": source.fingerprint,
    }


def find(config: Config, own: Mapping[str, Any], cluster: Cluster, say: Callable[[str], None]) -> Checkpoint | None:
    """The checkpoint to go on from; TrainError when it is another run's, a line for each flag that has changed."""
    if config.resume:
        found: Checkpoint | None = checkpoint.read(Path(config.resume))
    else:
        found = _newest(config.run_dir / "checkpoints", cluster, say) if config.auto_resume else None
    if found is not None:
        _refuse_another(found, own, config)
        _report_changes(found, config, say)
    return found


def _newest(root: Path, cluster: Cluster, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest good checkpoint, as process 0 finds it: it alone looks, and mends what a killed run left."""
    found = checkpoint.newest(root, say) if cluster.rank == 0 else None
    told = int(cluster.all_reduce_sum(np.array([found.step + 1 if found else 0]))[0])  # 0 for none
    return found if cluster.rank == 0 or not told else checkpoint.read(checkpoint.place(root, told - 1))


def _refuse_another(found: Checkpoint, own: Mapping[str, Any], config: Config) -> None:
    theirs = found.meta.get("identity", {})
    devices = f" x {config.devices} devices" if config.devices > 1 else ""
    lines = {
        "task": "--task {own}: the run began with {theirs}",
        "seed": "--seed {own}: the run began with {theirs}",
        "effective_batch": f"--batch_size x --update_freq{devices}: {{own}} images an update, the run began with"
        f" {{theirs}}, {_fitting(theirs.get('effective_batch'), config)}",
        "images": "--data_path: the data has {own} images now, the run began with {theirs}",
        "fingerprint": "--data_path: the data is not what the run began with, or its files were renamed",
    }
    if theirs.get("model") != own["model"]:
        difference = _difference(theirs.get("model"), own["model"])
        raise TrainError(f"{found.path}: a checkpoint of another model ({difference}); give another --output_dir")
    for key, line in lines.items():
        if theirs.get(key) != own[key]:
            reason = line.format(own=own[key], theirs=theirs.get(key))
            raise TrainError(f"{reason}; give the same again, or another --output_dir ({found.path})")


def _fitting(images: Any, config: Config) -> str:
    """The flags that make an update of so many images on the devices that are here, in no larger a micro-batch."""
    if not isinstance(images, int) or images % config.devices:
        return f"which {config.devices} devices cannot share"
    share = images // config.devices
    batch = max(size for size in range(1, min(share, config.batch_size) + 1) if share % size == 0)
    return f"as --batch_size {batch} --update_freq {share // batch} would be"


def _difference(theirs: Any, own: Mapping[str, Any], at: str = "") -> str:
    """The first field in which two models, as nested dicts, differ."""
    if not isinstance(theirs, dict):
        return f"{at}{theirs} there, {own} here"
    for name, value in own.items():
        if theirs.get(name) != value:
            if isinstance(value, dict):
                return _difference(theirs.get(name), value, f"{at}{name}.")
            return f"{at}{name} {theirs.get(name)} there, {value} here"
    return "its fields are unknown here"


def _report_changes(found: Checkpoint, config: Config, say: Callable[[str], None]) -> None:
    before, now = found.meta.get("config", {}), config.as_dict()
    for name in (member.name for group in COMPARED for member in fields(group)):
        if name not in FREE and name in before and before[name] != now[name]:
            say(f"note: --{name} is {now[name]}, the run began with {before[name]}")
