"""The run: what happens between a command line and a trained model, in either framework."""

import os
import platform
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata

import backends
import spec
from backends.protocol import Backend, Cluster, State, Trainer
from train import report
from train.check import check_engine
from train.command.config import Config
from train.errors import TrainError
from train.record import machine, resume
from train.run import Run, Stopped
from train.schedule import Schedule
from train.signals import Signals
from train.tasks.finetune import Finetuning
from train.tasks.pretrain import Pretraining
from train.tasks.task import Task

TASKS: dict[str, Callable[[Config], Task]] = {"pretrain": Pretraining, "finetune": Finetuning}
Say = Callable[[str], None]
VERSIONED = ("twinnext", "torch", "jax", "flax", "optax", "numpy", "pillow", "simplejpeg")


def run(config: Config, load: Callable[[str], Backend] = backends.load) -> Stopped | None:
    """Train to the end of the schedule, or to --stop_at_step; how far it came where a signal has stopped it.

    TrainError for what cannot go on. The framework is loaded when the task is known to be sound,
    and tells with whom and on how many devices this process runs.
    """
    task = TASKS[config.task](config)
    backend = load(config.backend)
    cluster = backend.init_cluster(config.device)
    with Signals() as signals:  # after joining: jax.distributed has handlers of its own
        config = replace(config, devices=cluster.processes * cluster.devices)
        stopped = _train(config, task, backend, cluster, signals)
        cluster.shutdown()
    return stopped


def _train(config: Config, task: Task, backend: Backend, cluster: Cluster, signals: Signals) -> Stopped | None:
    leads = cluster.rank == 0
    say: Say = print if leads else _silent
    schedule = Schedule.of(config, len(task.source))
    if leads:
        _open_run_dir(config)
    own = resume.identity(config, task.name, task.model, task.source)
    found = resume.find(config, own, cluster, say)
    start = found.step if found else config.start_epoch * schedule.updates_per_epoch
    stop = min(schedule.updates, config.stop_at_step or schedule.updates)
    for line in (*task.summary(), _plan(config, schedule)):
        say(line)
    if start >= stop:
        say(f"nothing to do: {config.run_dir} is at step {start:,} of {stop:,}; train anew in another --output_dir")
        return None
    if config.parity_check and config.engine != "masked" and isinstance(task.model, spec.FCMAE):
        distance = check_engine(backend, task.model, engine=config.engine, dtype=config.precision, device=config.device)
        say(f"parity check passed: {distance}")
    first = None if found else task.first_arrays()
    trainer = _trainer(config, backend, task, cluster)
    if found:
        trainer.restore(found.state)
        say(f"going on from {found.path}")
    elif first:
        trainer.restore(State.initial(first))
    try:
        return Run(config, task, schedule, trainer, cluster, own, signals).go(start, stop)
    finally:
        if leads:
            say(report.told(config.run_dir))


def _silent(line: str) -> None:
    """What another process says."""


def _trainer(config: Config, backend: Backend, task: Task, cluster: Cluster) -> Trainer:
    return backend.Trainer(task.model, task.optimizer, config.trainer_options(), cluster=cluster)


def _open_run_dir(config: Config) -> None:
    """Make the run directory and write config.toml; TrainError when that cannot be."""
    try:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        file = config.run_dir / "config.toml"
        aside = file.with_suffix(".writing")  # a full disk must not cost the run what it was
        about = f"# {_versions()}\n# {machine.describe(config.devices)}\n"
        aside.write_text(about + config.to_toml(), encoding="utf-8")
        os.replace(aside, file)
    except OSError as error:
        raise TrainError(f"--output_dir {config.run_dir}: cannot be written: {error.strerror}") from None


def _versions() -> str:
    """The packages that decide the numbers, e.g. "python 3.11.7, torch 2.13.0, numpy 2.4.6"."""
    found = {distribution.metadata["Name"]: distribution.version for distribution in metadata.distributions()}
    return ", ".join([f"python {platform.python_version()}", *(f"{n} {found[n]}" for n in VERSIONED if n in found)])


def _plan(config: Config, schedule: Schedule) -> str:
    return (
        f"{schedule.updates:,} updates of {config.effective_batch:,} images, peak learning rate {config.peak_lr:.2e};"
        f" in {config.run_dir}"
    )
