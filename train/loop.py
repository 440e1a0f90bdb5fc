"""The training loop: one update after another, with logging, evaluation, checkpoints and signals."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from backends.protocol import Batch, Cluster, Trainer
from convert.containers import run
from train.checkpoints import store
from train.checkpoints.best import BestCheckpoints
from train.checkpoints.checkpointer import AsyncCheckpointer
from train.config import Config
from train.data.feed import RankShard
from train.data.pipeline import Watch, prefetch
from train.errors import TrainError
from train.logs import machine, nan_report
from train.logs.metrics import Metrics, Update
from train.logs.run_log import RunLog, SilentLog
from train.logs.tracking import Tracker
from train.report import confusion
from train.schedule import Schedule
from train.signals import Signals
from train.tasks.task import Evaluation, Task

AGREE = 8
"""With several processes, check for signals every AGREE updates, which waits for all of them.

At one update in three seconds this is within the 30 seconds that SLURM leaves between SIGTERM and SIGKILL.
"""


@dataclass(frozen=True)
class Stopped:
    """Where a signal stopped a run: after a whole update, before its end."""

    step: int
    signal: str
    saved: bool

    def __str__(self) -> str:
        kept = "saved; the same command continues from here" if self.saved else "not saved (--save_ckpt False)"
        return f"stopped by {self.signal} after step {self.step:,}, {kept}"


class UpdateBatches:
    """The batches that this process passes to the trainer, grouped by update."""

    def __init__(self, config: Config, task: Task, cluster: Cluster, updates_per_epoch: int) -> None:
        self.config, self.cluster = config, cluster
        rows = config.optimizer.batch_size * cluster.devices
        self.feed = task.feed(rows, config.effective_batch, updates_per_epoch)

    def iterate(
        self, start: int, stop: int, metrics: Metrics, say: Callable[[str], None], should_stop: Callable[[], bool]
    ) -> Generator[tuple[list[Batch], list[str]], None, None]:
        """The micro-batches of updates start + 1 to stop, and a line for each broken image in them.

        Ends early when `should_stop` returns True while a batch is waited for.
        """
        data, frequency = self.config.data, self.config.optimizer.update_freq
        own = RankShard(self.feed, self.cluster.rank, self.cluster.processes)
        watch = Watch(say, self._describe_batch, should_stop)
        batches = prefetch(own, start * frequency, stop * frequency, data.num_workers, data.worker_type, watch)
        with closing(batches):
            for _ in range(start, stop):
                with metrics.waiting_for_data():
                    group = list(islice(batches, frequency))
                if len(group) < frequency:
                    return
                yield [batch for batch, _ in group], [line for _, lines in group for line in lines]

    def describe(self, step: int) -> dict[str, Any]:
        """The samples of the update that ends at `step`, on all processes: their positions in the run, their items."""
        positions = self._positions(step)
        items = [self.feed.key(position) for position in positions]
        return {"positions": [positions[0], positions[-1] + 1], "items": items}

    def images(self, step: int) -> int:
        """The number of images in the update that ends at `step`, on all processes."""
        return len(self._positions(step))

    def _positions(self, step: int) -> list[int]:
        count = self.config.optimizer.update_freq * self.cluster.processes
        every = [self.feed.positions(index) for index in range((step - 1) * count, step * count)]
        return list(np.unique(np.concatenate(every)).tolist())

    def _describe_batch(self, index: int) -> str:
        """Which update micro-batch `index` of this process belongs to, and its first image."""
        positions = self.feed.positions(index * self.cluster.processes + self.cluster.rank)
        update = index // self.config.optimizer.update_freq + 1
        key = self.feed.key(int(positions[0]))
        return f"update {update:,} waits for images of --data_path {self.config.data.data_path}, starting at {key}"


class Loop:
    """The updates of a run from `start` to `stop`."""

    def __init__(
        self,
        config: Config,
        task: Task,
        schedule: Schedule,
        trainer: Trainer,
        cluster: Cluster,
        identity: dict[str, Any],
        signals: Signals,
        start: int,
        stop: int,
    ) -> None:
        self.config, self.task, self.schedule, self.trainer, self.cluster = config, task, schedule, trainer, cluster
        self.signals, self.start, self.stop = signals, start, stop
        self.meta = {"identity": identity, "config": config.as_dict(), **task.meta}
        self.meta |= {"command": config.command(), "versions": machine.versions()}
        self.scored: tuple[int, dict[str, float]] = (-1, {})  # the step of the last evaluation, and its scores
        self.metrics = Metrics(config.devices)
        self.batches = UpdateBatches(config, task, cluster, schedule.updates_per_epoch)
        self.log = self._open_log()
        self.best = BestCheckpoints(config.run_dir) if isinstance(self.log, RunLog) else None
        self.checkpointer = AsyncCheckpointer(self.log.say)
        self.checkpoints = config.run_dir / "checkpoints"
        self.saved = start
        self.broken_images: set[str] = set()

    def _open_log(self) -> RunLog | SilentLog:
        config = self.config
        if self.cluster.rank:
            return SilentLog(self.cluster.rank)
        events = Path(config.run.log_dir) if config.run.log_dir else config.run_dir / "tb"
        project = config.run.wandb
        tracker = Tracker(project, config.run_dir, config.as_dict(), print) if project else None
        return RunLog(config.run_dir, events, self.start, self.stop, tracker)

    def run(self) -> Stopped | None:
        """Train; return where a signal stopped the run, or None at its end."""
        step, stop, log = self.start, self.stop, self.log
        batches = self.batches.iterate(step, stop, self.metrics, log.say, self._should_stop_waiting)
        with log, self.checkpointer, closing(batches):
            for step, (micro_batches, broken) in enumerate(batches, self.start + 1):
                self._update(step, micro_batches, broken)
                self._log_and_save(step)
                if self._should_stop(step):
                    break
            if step == stop:
                return None
            if step > self.saved:
                self._log_metrics(step)
                self._save(step)
        return Stopped(step, self.signals.first or "a signal to another process", self.config.checkpoints.save_ckpt)

    def _update(self, step: int, batches: list[Batch], broken: list[str]) -> None:
        lr = self.schedule.lr(step - 1)
        self.metrics.add(step, lr, self.trainer.step(batches, lr), broken, self.batches.images(step))
        self._check_finite()
        self.checkpointer.poll()
        self.log.advance()
        self._report_broken(broken)

    def _log_and_save(self, step: int) -> None:
        """Log, evaluate and save, whatever is due after this update."""
        eval_freq, last, saving = self.task.eval_freq, step == self.stop, self.config.checkpoints
        every = saving.save_every_steps is not None and step % saving.save_every_steps == 0
        saves = saving.save_ckpt and (last or every or self._ends_epochs(step, saving.save_ckpt_freq))
        evaluates = eval_freq > 0 and (last or self._ends_epochs(step, eval_freq))
        if saves or evaluates or last or step % self.config.run.print_freq == 0:
            self._log_metrics(step)
        if evaluates:
            self._evaluate(step)
            self.metrics.reset()
        if saves:  # after the evaluation: a run killed before this save repeats the evaluation, too
            self._save(step)

    def _ends_epochs(self, step: int, epochs: int) -> bool:
        """Whether this update ends a multiple of `epochs`."""
        return step % (epochs * self.schedule.updates_per_epoch) == 0

    def _should_stop(self, step: int) -> bool:
        """Whether a signal asks to stop after this update; all processes agree."""
        signalled = self.signals.first is not None
        if self.cluster.processes == 1:
            return signalled
        return step % AGREE == 0 and bool(self.cluster.all_reduce_sum(np.array([signalled]))[0])

    def _should_stop_waiting(self) -> bool:
        """Whether to stop while waiting for data. Single process only: several have to agree after an update."""
        return self.cluster.processes == 1 and self.signals.first is not None

    def _report_broken(self, broken: Sequence[str]) -> None:
        """Print each broken image once; the metrics count how often one was skipped."""
        for line in dict.fromkeys(broken):
            if line not in self.broken_images:
                self.broken_images.add(line)
                self.log.say(f"skipped, {len(self.broken_images)} so far: {line}")

    def _log_metrics(self, step: int) -> None:
        values = self.metrics.read()
        self._check_finite()
        if not values:  # already logged
            return
        shared = self.cluster.all_reduce_sum(np.array([values["skipped"], values["data_wait"]])).tolist()
        values |= {"skipped": shared[0], "data_wait": shared[1] / self.cluster.processes}
        self.log.metrics(step, self.schedule.epoch(step), {"lr": self.schedule.lr(step - 1), **values})

    def _check_finite(self) -> None:
        """TrainError if a finished update has a loss or gradient that is not finite; on all processes at once."""
        first = self.metrics.first_not_finite
        if first is None:
            return
        what = f"loss is {first.loss}" if first.loss - first.loss else f"gradient's norm is {first.grad_norm}"
        raise TrainError(
            f"step {first.step}: the {what}; nothing was saved since{self._write_nan_report(first)}."
            " Lower --blr, set --clip_grad 1, or use --precision float32"
        )

    def _write_nan_report(self, first: Update) -> str:
        """Write the report in process 0; return the words of the message about it."""
        if self.cluster.rank:
            return ""
        self.checkpointer.wait()
        newest = next((str(path) for _, path in run.steps(self.checkpoints)), None)
        details = {**self.batches.describe(first.step), "checkpoint": newest}
        try:
            return f", details in {nan_report.write(self.config.run_dir, self.metrics.recent, first, details)}"
        except OSError as error:
            return f" (the details cannot be written: {error.strerror})"

    def _save(self, step: int) -> None:
        if not self.config.checkpoints.save_ckpt:
            return
        self.checkpointer.wait()
        state = self.trainer.export()
        self.saved = step
        if state is not None:
            root, meta, keep = self.checkpoints, self._meta(step), self.config.checkpoints.save_ckpt_num
            self.checkpointer.start(lambda: store.save(root, step, state, meta, keep))

    def _meta(self, step: int) -> dict[str, Any]:
        meta = {**self.meta, "epoch": self.schedule.epoch(step), "backend": self.config.run.backend}
        return meta | ({"scores": self.scored[1]} if self.scored[0] == step else {})

    def _evaluate(self, step: int) -> None:
        """Evaluate, log the result, and keep the model if it is the best so far."""
        found = self.task.evaluate(self.trainer, self.cluster)
        self.scored = step, dict(found.scores)
        self._report_broken(found.broken)
        if found.scores:
            self.log.scores(step, self.schedule.epoch(step), found.scores, found.coverage)
        if self.cluster.rank == 0:
            self._write_confusions(found)
        if self.config.checkpoints.save_ckpt:
            self._save_best(step, found)
        if found.picture and isinstance(self.log, RunLog):
            file = self.log.picture(step, found.picture)
            if step == self.stop:
                self.log.say(f"reconstructions: {file}")

    def _write_confusions(self, found: Evaluation) -> None:
        """Write the confusion matrices, those of the report; a full disk costs a line."""
        for suffix, matrix in found.confusions.items():
            file = self.config.run_dir / f"confusion{suffix}.csv"
            try:
                confusion.write(file, self.task.meta["classes"], matrix)
            except OSError as error:
                self.log.say(f"{file}: cannot be written: {error.strerror}")

    def _save_best(self, step: int, found: Evaluation) -> None:
        self.checkpointer.wait()  # only then are the best scores so far known
        best, scores = self.best, found.scores
        improved = best is not None and bool(best.improved(scores))
        if self.cluster.all_reduce_sum(np.array([improved]))[0]:  # export is collective
            state = self.trainer.export()
            if state is not None and best is not None:
                meta = self._meta(step)
                self.checkpointer.start(lambda: best.save(step, scores, state, meta))
