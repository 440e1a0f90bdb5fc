"""Resuming a run: which checkpoint, and whether it belongs to the same run."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import convert
import spec
from backends.protocol import Cluster, State
from convert import ConvertError, containers, hub, models
from convert.containers import run as run_format
from convert.containers.run import RunCheckpoint
from convert.content import AdamWState
from train.checkpoints import store
from train.config import Config
from train.config.config import FLAGS
from train.data.sources import Source
from train.errors import TrainError, of_convert

COMPARED = ("data", "optimizer", "finetune", "augment")
"""Groups of flags of which a change is reported."""

FREE = ("data_path", "num_workers", "worker_type", "batch_size", "update_freq")
"""Flags whose change is not reported: they do not change results, or the identity covers them."""

SEEN = ("input_size", "mean", "std", "mask_policy")
"""Flags that change what is seen of every image: a change must be given."""

PUBLISHED = {"mask_policy": "uniform"}
"""What runs did that do not record it."""

UNDETERMINED = ("image_size", "mask_ratio", "mask_rounding", "norm_target", "drop_path", "grn_scope", "norm_eps")
"""Fields of a model that its arrays do not determine."""


def identity(config: Config, task: str, model: spec.Model, source: Source) -> dict[str, Any]:
    """What must be equal to resume: it decides the arrays of a state, and which sample has which position."""
    return {
        "task": task,
        "model": models.describe(model),
        "seed": config.run.seed,
        "effective_batch": config.effective_batch,
        "drop_last": config.optimizer.drop_last,
        "images": len(source),
        "fingerprint": source.fingerprint,
    }


def find(config: Config, own: Mapping[str, Any], cluster: Cluster, say: Callable[[str], None]) -> RunCheckpoint | None:
    """The checkpoint to resume from, if any, with a line for each flag that has changed.

    own: the identity of this run. TrainError if the checkpoint has another one, or no optimizer state.
    """
    found = _newest(config.run_dir, cluster, say) if config.checkpoints.auto_resume else None
    if config.checkpoints.resume:
        found = _asked_for(config, found, say)
    if found is None:
        return None
    if not found.state.mu:
        raise TrainError(
            f"{found.path}: has no optimizer state, so training cannot continue; start from its encoder with"
            f" --task finetune --finetune {found.path} and another --output_dir"
        )
    if "task" in found.meta.get("identity", {}):
        _refuse_another(found, own, config)
        _report_changes(found.meta.get("config", {}), config, say)
    else:
        _adopt(found, own, config, say)
    if config.finetune.model_ema and not found.state.ema:
        say(f"note: {found.path} has no EMA; it starts from the parameters")
        found.state.ema.update({name: array.copy() for name, array in found.state.params.items()})
    return found


def _asked_for(config: Config, newest: RunCheckpoint | None, say: Callable[[str], None]) -> RunCheckpoint:
    """The checkpoint of --resume, or the newest of this run if it has come further; TrainError if it cannot be read."""
    path = Path(config.checkpoints.resume)
    try:
        found = _read(hub.local(path))
    except ConvertError as error:
        raise TrainError(f"--resume {of_convert(path, error)}") from None
    if newest and newest.step > found.step and not path.resolve().is_relative_to(config.run_dir.resolve()):
        say(f"note: {config.run_dir} is at step {newest.step:,}, past that of --resume, and continues from there")
        return newest
    return found


def _read(path: Path) -> RunCheckpoint:
    """A checkpoint in a folder of ours, the newest of a run, or one in a file of another program."""
    if not path.exists() or containers.kind_of(path) != "run":
        return _foreign(path)
    inside = run_format.steps(path / run_format.FOLDER)
    return run_format.load(inside[0][1] if inside else path)


def _foreign(path: Path) -> RunCheckpoint:
    """A training checkpoint that another program wrote, such as the released scripts; its step is AdamW's."""
    loaded = convert.load(path)
    adam = loaded.optimizer or AdamWState({}, {}, 0)
    params, mu, nu, ema = (
        {name: np.asarray(array).astype(np.float32) for name, array in part.items()}
        for part in (loaded.arrays, adam.mu, adam.nu, loaded.ema)
    )
    meta = {**loaded.meta, "identity": {"model": models.describe(loaded.model)}}
    return RunCheckpoint(path, adam.t, State(params, mu, nu, ema, adam.t), meta)


def _newest(run_dir: Path, cluster: Cluster, say: Callable[[str], None]) -> RunCheckpoint | None:
    """The newest intact checkpoint, or the one that convert wrote to the run directory itself.

    Only process 0 searches, and removes what a killed run left behind.
    """
    root = run_dir / run_format.FOLDER
    found = store.newest(root, say) if cluster.rank == 0 else None
    step = int(cluster.all_reduce_sum(np.array([found.step + 1 if found else 0]))[0]) - 1
    if step < 0:
        return run_format.load(run_dir) if (run_dir / run_format.MANIFEST).is_file() else None
    return found if cluster.rank == 0 else run_format.load(root / run_format.name_of(step))


def _refuse_another(found: RunCheckpoint, own: Mapping[str, Any], config: Config) -> None:
    """TrainError unless the checkpoint is one of this run."""
    theirs = {"drop_last": True, **found.meta["identity"]}  # older runs have no such flag
    devices = f" x {config.devices} devices" if config.devices > 1 else ""
    lines = {
        "task": "--task {own}: the run began with {theirs}",
        "seed": "--seed {own}: the run began with {theirs}",
        "effective_batch": f"--batch_size x --update_freq{devices}: {{own}} images per update, the run began with"
        f" {{theirs}}, {_matching_flags(theirs.get('effective_batch'), config)}",
        "drop_last": "--drop_last {own}: the run began with {theirs}",
        "images": "--data_path: the data has {own} images now, the run began with {theirs}",
        "fingerprint": "--data_path: the data is not what the run began with, or its files were renamed",
    }
    _refuse_another_model(found, theirs.get("model"), own["model"])
    for key, line in lines.items():
        if theirs.get(key) != own[key]:
            reason = line.format(own=own[key], theirs=theirs.get(key))
            raise TrainError(f"{reason}; give the same again, or another --output_dir ({found.path})")


def _refuse_another_model(found: RunCheckpoint, theirs: Any, own: Mapping[str, Any]) -> None:
    theirs = _as_described_now(theirs)
    if theirs != own:
        difference = _first_difference(theirs, own)
        remedy = "give the flags of its model, or another --output_dir"
        raise TrainError(f"{found.path}: a checkpoint of another model ({difference}); {remedy}")


def _as_described_now(model: Any) -> Any:
    """The fields of a model, with defaults for those that an older version lacked; unchanged if they are no model's."""
    try:
        return models.describe(models.build(model))
    except ConvertError:
        return model


def _adopt(found: RunCheckpoint, own: Mapping[str, Any], config: Config, say: Callable[[str], None]) -> None:
    """Take over the state of another program, which does not say on what data it was trained.

    TrainError if it has another model; a line for everything else that is known to differ.
    """
    args = found.meta.get("args")
    before = dict(args) if isinstance(args, Mapping) else {}
    theirs = _with_own(found.meta["identity"].get("model"), own["model"])
    _refuse_another_model(found, theirs, own["model"])
    say(f"note: {found.path} does not say what data, order and seed it began with; it continues with those of this run")
    counts = [before.get(name, 0) for name in ("batch_size", "update_freq", "world_size")]
    if all(isinstance(count, int) for count in counts) and math.prod(counts) not in (0, config.effective_batch):
        say(f"note: {config.effective_batch:,} images per update, it had {math.prod(counts):,}")
    lr = before.get("lr")
    if config.optimizer.lr is None and isinstance(lr, float | int) and math.isclose(lr, config.peak_lr):
        del before["lr"]  # the released scripts compute it
    _report_changes(before, config, say)


def _with_own(theirs: Any, own: Mapping[str, Any]) -> Any:
    """Their model with our values of the fields that its arrays do not determine."""
    if not isinstance(theirs, dict):
        return theirs
    made = {name: own.get(name, value) if name in UNDETERMINED else value for name, value in theirs.items()}
    return made | ({"encoder": _with_own(theirs["encoder"], own["encoder"])} if "encoder" in theirs else {})


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


def _report_changes(before: Mapping[str, Any], config: Config, say: Callable[[str], None]) -> None:
    """A line for each changed flag; TrainError for a change of what the model sees that was not given."""
    now, before = config.as_dict(), {**PUBLISHED, **before}
    compared = [name for name, flag in FLAGS.items() if flag.group in COMPARED or name in SEEN]
    for name in (name for name in compared if config.run.task in FLAGS[name].tasks):
        if name not in FREE and name in before and before[name] != now[name] and [before[name]] != now[name]:
            if name in SEEN and name not in config.given:
                value = " ".join(map(str, before[name])) if isinstance(before[name], list) else before[name]
                raise TrainError(f"--{name}: the run began with {value}, now it is {now[name]}; give --{name} {value}")
            say(f"note: --{name} is {now[name]}, the run began with {before[name]}")
