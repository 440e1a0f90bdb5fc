"""The run: what happens between a command line and a trained model, in either framework."""

import math
import platform
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import backends
import spec
from backends.protocol import Arrays, Backend, Batch, Cluster, State, Trainer
from train import checkpoint, machine, report, resume
from train.best import Best
from train.check import check_engine
from train.config import Config
from train.data.feed import Share
from train.data.pipeline import prefetch
from train.errors import TrainError
from train.finetune import Finetuning
from train.logs import Meter, RunLog, Silent
from train.pretrain import Pretraining
from train.schedule import Schedule
from train.task import Task

TASKS: dict[str, Callable[[Config], Task]] = {"pretrain": Pretraining, "finetune": Finetuning}
Say = Callable[[str], None]
VERSIONED = ("twinnext", "torch", "jax", "flax", "optax", "numpy", "pillow", "simplejpeg")


def run(config: Config, load: Callable[[str], Backend] = backends.load) -> None:
    """Train to the end of the schedule, or to --stop_at_step; TrainError for what cannot go on.

    The framework is loaded when the task is known to be sound, and tells with whom and on how
    many devices this process runs.
    """
    task = TASKS[config.task](config)
    backend = load(config.backend)
    cluster = backend.join(config.device)
    _train(replace(config, devices=cluster.processes * cluster.devices), task, backend, cluster)
    cluster.leave()


def _train(config: Config, task: Task, backend: Backend, cluster: Cluster) -> None:
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
        return
    if config.parity_check and config.engine != "masked" and isinstance(task.model, spec.FCMAE):
        distance = check_engine(backend, task.model, engine=config.engine, dtype=config.precision, device=config.device)
        say(f"parity check passed: {distance}")
    first = None if found else task.first_arrays()
    trainer = _trainer(config, backend, task, cluster)
    if found:
        trainer.restore(found.state)
        say(f"going on from {found.path}")
    elif first:
        trainer.restore(_unmoved(first))
    try:
        _Run(config, task, schedule, trainer, cluster, own).go(start, stop)
    finally:
        if leads:
            print(report.told(config.run_dir))


class _Run:
    """A trainer on its way from one update to another."""

    def __init__(
        self,
        config: Config,
        task: Task,
        schedule: Schedule,
        trainer: Trainer,
        cluster: Cluster,
        identity: dict[str, Any],
    ) -> None:
        self.config, self.task, self.schedule, self.trainer, self.cluster = config, task, schedule, trainer, cluster
        self.meta = {"identity": identity, "config": config.as_dict(), **task.meta}
        self.broken: set[str] = set()

    def go(self, start: int, stop: int) -> None:
        """Make the updates from `start` to `stop`, logging, saving and reviewing on the way."""
        config, meter, review_freq = self.config, Meter(), self.task.review_freq
        with self._log(start, stop) as self.log, closing(self._updates(start, stop)) as updates:
            for step, (batches, broken) in enumerate(updates, start + 1):
                outcome = self.trainer.step(batches, self.schedule.lr(step - 1))
                meter.add(outcome, config.effective_batch, len(broken))
                self.log.update()
                self._report(broken)
                saves = config.save_ckpt and self._due(step, config.save_ckpt_freq, stop)
                reviews = review_freq > 0 and self._due(step, review_freq, stop)
                if saves or reviews or step % config.print_freq == 0 or step == stop:
                    self._record(step, meter.read())
                if reviews:
                    self._review(step, last=step == stop)
                    meter.restart()
                if saves:  # last, so that a run cut short before it comes back to the review
                    self._save(step)

    def _log(self, start: int, stop: int) -> RunLog | Silent:
        """What writes the run down, in the process that does; and with it the best checkpoints."""
        if self.cluster.rank:
            return Silent(self.cluster.rank)
        events = Path(self.config.log_dir) if self.config.log_dir else self.config.run_dir / "tb"
        log = RunLog(self.config.run_dir, events, start, stop)
        self.best = Best(self.config.run_dir)
        return log

    def _updates(self, start: int, stop: int) -> Generator[tuple[list[Batch], list[str]], None, None]:
        """The micro-batches of each update, and a line for each broken image in them."""
        config, frequency = self.config, self.config.update_freq
        epoch_size = self.schedule.updates_per_epoch * config.effective_batch
        feed = self.task.feed(config.batch_size * self.cluster.devices, epoch_size)
        own = Share(feed, self.cluster.rank, self.cluster.processes)
        made = prefetch(own, start * frequency, stop * frequency, config.num_workers, config.worker_type)
        with closing(made):
            while group := list(islice(made, frequency)):
                yield [batch for batch, _ in group], [line for _, lines in group for line in lines]

    def _due(self, step: int, epochs: int, stop: int) -> bool:
        return step == stop or step % (epochs * self.schedule.updates_per_epoch) == 0

    def _report(self, broken: Sequence[str]) -> None:
        """Name each broken image once; how often one was skipped is in the metrics."""
        for line in dict.fromkeys(broken):
            if line not in self.broken:
                self.broken.add(line)
                self.log.say(f"skipped, {len(self.broken)} so far: {line}")

    def _record(self, step: int, values: dict[str, float]) -> None:
        if not math.isfinite(values["loss"]):
            raise TrainError(
                f"step {step}: the loss is {values['loss']}; nothing was saved since it broke. Lower --blr, set"
                " --clip_grad 1, or use --precision float32"
            )
        values["skipped"] = float(self.cluster.total(np.array([values["skipped"]]))[0])
        self.log.record(step, self.schedule.epoch(step), {"lr": self.schedule.lr(step - 1), **values})

    def _save(self, step: int) -> None:
        root = self.config.run_dir / "checkpoints"
        state = self.trainer.export()
        if state is not None:
            checkpoint.save(root, step, state, self._about(step), self.config.save_ckpt_num)

    def _about(self, step: int) -> dict[str, Any]:
        return {**self.meta, "epoch": self.schedule.epoch(step), "backend": self.config.backend}

    def _review(self, step: int, last: bool) -> None:
        """Write down what the task sees in the model, and keep the model where it is the best so far."""
        scores, skipped, picture = self.task.review(self.trainer, self.cluster)
        self._report(skipped)
        if scores:
            self.log.judged(step, self.schedule.epoch(step), scores)
        if self.config.save_ckpt:
            self._keep_best(step, scores)
        if picture and isinstance(self.log, RunLog):
            file = self.log.picture(step, picture)
            if last:
                self.log.say(f"reconstructions: {file}")

    def _keep_best(self, step: int, scores: dict[str, float]) -> None:
        raised = isinstance(self.log, RunLog) and bool(self.best.raised(scores))
        if self.cluster.total(np.array([raised]))[0]:  # everybody exports, or nobody
            state = self.trainer.export()
            if state is not None:
                self.best.keep(step, scores, state, self._about(step))


def _silent(line: str) -> None:
    """What another process says."""


def _unmoved(params: Arrays) -> State:
    """A state of given parameters before the first update."""
    zeros = {name: np.zeros_like(array) for name, array in params.items()}
    return State(params, zeros, zeros, params)


def _trainer(config: Config, backend: Backend, task: Task, cluster: Cluster) -> Trainer:
    return backend.Trainer(
        task.model,
        task.optimizer,
        seed=config.seed,
        dtype=config.precision,
        engine=config.engine,
        mean=config.mean,
        std=config.std,
        device=config.device,
        cluster=cluster,
        shard=config.shard,
    )


def _open_run_dir(config: Config) -> None:
    """Make the run directory and write config.toml; TrainError when that cannot be."""
    try:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        about = f"# {_versions()}\n# {machine.describe(config.devices)}\n"
        (config.run_dir / "config.toml").write_text(about + config.to_toml(), encoding="utf-8")
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
