"""A training run from its configuration to its last update: set-up, resume, loop, report."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace

import backends
import spec
from backends.protocol import Backend, Cluster, State, Trainer
from convert import files
from convert.containers.run import RunCheckpoint
from train import report
from train.check import check_engine
from train.checkpoints import resume
from train.checkpoints.lock import locked
from train.config import Config
from train.errors import writing
from train.logs import machine
from train.loop import Loop, Stopped
from train.schedule import Schedule
from train.signals import Signals
from train.tasks.finetune import Finetuning
from train.tasks.pretrain import Pretraining
from train.tasks.task import Task

TASKS: dict[str, Callable[[Config], Task]] = {"pretrain": Pretraining, "finetune": Finetuning}
Say = Callable[[str], None]


def train(config: Config, load: Callable[[str], Backend] = backends.load) -> Stopped | None:
    """Train to the end of the schedule or to --stop_at_step; return where a signal stopped the run, else None.

    The framework is loaded only after the task has been checked. TrainError if the run cannot
    start or continue.
    """
    task = TASKS[config.run.task](config)
    backend = load(config.run.backend)
    cached = backend.use_compilation_cache(config.run.compilation_cache)
    cluster = backend.init_cluster(config.run.device)
    if cached and cluster.rank == 0:
        print(cached)
    with Signals() as signals:  # after init_cluster: jax.distributed installs handlers of its own
        config = replace(config, devices=cluster.processes * cluster.devices)
        stopped = _run(config, task, backend, cluster, signals)
        cluster.shutdown()
    return stopped


def _run(config: Config, task: Task, backend: Backend, cluster: Cluster, signals: Signals) -> Stopped | None:
    main_process = cluster.rank == 0
    say: Say = print if main_process else lambda line: None
    schedule = Schedule.of(config, len(task.source))
    with _open_run_dir(config) if main_process else nullcontext():
        identity = resume.identity(config, task.name, task.model, task.source)
        found = resume.find(config, identity, cluster, say)
        start = found.step if found else config.checkpoints.start_epoch * schedule.updates_per_epoch
        stop = min(schedule.updates, config.checkpoints.stop_at_step or schedule.updates)
        for line in (*task.summary(), *_plan(config, schedule, len(task.source))):
            say(line)
        if start >= stop:
            say(f"nothing to do: {config.run_dir} is at step {start:,} of {stop:,}; train anew in another --output_dir")
            return None
        trainer = _trainer(config, backend, task, cluster, found, say)
        say(f"{config.run.backend}: {trainer.execution}")
        try:
            return Loop(config, task, schedule, trainer, cluster, identity, signals, start, stop).run()
        finally:
            if main_process:
                say(report.try_write(config.run_dir))


def _check_parity(config: Config, backend: Backend, task: Task, say: Say) -> None:
    """Compare the engine with the masked one, if --parity_check asks for it and the task masks anything."""
    asked = config.run
    if asked.parity_check and asked.engine != "masked" and isinstance(task.model, spec.FCMAE):
        distance = check_engine(backend, task.model, engine=asked.engine, dtype=asked.precision, device=asked.device)
        say(f"parity check passed: {distance}")


def _trainer(
    config: Config, backend: Backend, task: Task, cluster: Cluster, found: RunCheckpoint | None, say: Say
) -> Trainer:
    """The trainer in the state of a checkpoint, or in that before the first update.

    Reads the first parameters, which may be refused, before it writes config.toml and checks parity.
    """
    arrays = None if found else task.first_arrays(say)
    if cluster.rank == 0:
        _write_config(config)
    _check_parity(config, backend, task, say)
    trainer = backend.Trainer(task.model, task.optimizer, config.trainer_options(), cluster=cluster)
    if found:
        trainer.restore(found.state)
        say(f"resumed from {found.path}")
    elif arrays:
        trainer.restore(State.initial(arrays))
    return trainer


@contextmanager
def _open_run_dir(config: Config) -> Iterator[None]:
    """Make the run directory, and hold its lock in this context; TrainError if it cannot be written, or is in use."""
    with ExitStack() as stack:
        with writing(f"--output_dir {config.run_dir}"):
            config.run_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(config.run_dir, print))
            files.sweep(config.run_dir)
        yield


def _write_config(config: Config) -> None:
    comments = f"# {machine.versions()}\n# {machine.describe(config.devices)}\n"
    with writing(f"--output_dir {config.run_dir}"), files.atomic(config.run_dir / "config.toml") as aside:
        aside.write_text(comments + config.to_toml(), encoding="utf-8", errors="surrogateescape")


def _plan(config: Config, schedule: Schedule, images: int) -> Iterator[str]:
    """The number and size of the updates, the highest learning rate; a note if that is not the peak."""
    highest, rest = schedule.highest_lr(), images % config.effective_batch
    partial = f", the last of an epoch of {rest:,}" if rest and not config.optimizer.drop_last else ""
    yield (
        f"{schedule.updates:,} updates of {config.effective_batch:,} images{partial}, peak learning rate {highest:.2e};"
        f" in {config.run_dir}"
    )
    if highest < schedule.peak:
        yield (
            f"note: the learning rate stays below {schedule.peak:.2e}: the warm-up takes {schedule.warmup:g} epochs"
            f" (--warmup_epochs), the run {schedule.epochs:g}"
        )
