"""A trainer on its way from one update to another: logging, saving and reviewing, and ready to stop."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.protocol import Batch, Cluster, Trainer
from train.command.config import Config
from train.errors import TrainError
from train.record import checkpoint, evidence
from train.record.best import Best
from train.record.logs import RunLog, Silent
from train.record.meter import Meter, Update
from train.record.saver import Saver
from train.record.tracking import Tracker
from train.schedule import Schedule
from train.signals import Signals
from train.tasks.task import Task
from train.updates import Updates

AGREE = 8
"""Updates between two times that several processes ask each other for a signal, for which they wait for each other:
at an update in three seconds still within the 30 that SLURM leaves from SIGTERM to SIGKILL."""


@dataclass(frozen=True)
class Stopped:
    """A run that a signal has ended before its time, after a whole update."""

    step: int
    signal: str
    saved: bool

    def __str__(self) -> str:
        kept = "saved; the same command goes on from here" if self.saved else "not saved, as --save_ckpt False asks"
        return f"stopped by {self.signal} after step {self.step:,}, {kept}"


class Run:
    """What is the same from update to update."""

    def __init__(
        self,
        config: Config,
        task: Task,
        schedule: Schedule,
        trainer: Trainer,
        cluster: Cluster,
        identity: dict[str, Any],
        signals: Signals,
    ) -> None:
        self.config, self.task, self.schedule, self.trainer, self.cluster = config, task, schedule, trainer, cluster
        self.meta = {"identity": identity, "config": config.as_dict(), **task.meta}
        self.signals = signals
        self.meter = Meter(config.effective_batch, config.devices)
        self.updates = Updates(config, task, cluster, schedule.updates_per_epoch)
        self.checkpoints = config.run_dir / "checkpoints"
        self.broken: set[str] = set()

    def go(self, start: int, stop: int) -> Stopped | None:
        """Make the updates from `start` to `stop`, or to where a signal asks to stop."""
        self.saved = step = start
        with (
            self._log(start, stop) as self.log,
            Saver(self.log.say) as self.saver,
            closing(self.updates.made(start, stop, self.meter, self.log.say, self._leaves)) as updates,
        ):
            for step, (batches, broken) in enumerate(updates, start + 1):
                self._update(step, batches, broken)
                self._look(step, ends=step == stop)
                if self._asked(step):
                    break
            if step == stop:
                return None
            if step > self.saved:
                self._record(step)
                self._save(step)
        return Stopped(step, self.signals.first or "a signal to another process", self.config.save_ckpt)

    def _update(self, step: int, batches: list[Batch], broken: list[str]) -> None:
        lr = self.schedule.lr(step - 1)
        self.meter.add(step, lr, self.trainer.step(batches, lr), broken)
        self._check()
        self.saver.look()
        self.log.update()
        self._report(broken)

    def _look(self, step: int, ends: bool) -> None:
        """Record, review and save where it is time to."""
        config, review_freq = self.config, self.task.review_freq
        each = config.save_every_steps
        saves = config.save_ckpt and (
            ends or self._epochs(step, config.save_ckpt_freq) or (each is not None and step % each == 0)
        )
        reviews = review_freq > 0 and (ends or self._epochs(step, review_freq))
        if saves or reviews or ends or step % config.print_freq == 0:
            self._record(step)
        if reviews:
            self._review(step, last=ends)
            self.meter.restart()
        if saves:  # last, so that a run cut short before it comes back to the review
            self._save(step)

    def _asked(self, step: int) -> bool:
        """Whether to stop after this update, the same for all processes."""
        own = self.signals.first is not None
        if self.cluster.processes == 1:
            return own
        return step % AGREE == 0 and bool(self.cluster.all_reduce_sum(np.array([own]))[0])

    def _log(self, start: int, stop: int) -> RunLog | Silent:
        """What writes the run down, in the process that does; and with it the best checkpoints."""
        config = self.config
        if self.cluster.rank:
            return Silent(self.cluster.rank)
        events = Path(config.log_dir) if config.log_dir else config.run_dir / "tb"
        tracker = Tracker(config.wandb, config.run_dir, config.as_dict(), print) if config.wandb else None
        log = RunLog(config.run_dir, events, start, stop, tracker)
        self.best = Best(config.run_dir)
        return log

    def _leaves(self) -> bool:
        """Whether to stop without waiting for the next batch: alone, for several stop together after an update."""
        return self.cluster.processes == 1 and self.signals.first is not None

    def _epochs(self, step: int, epochs: int) -> bool:
        return step % (epochs * self.schedule.updates_per_epoch) == 0

    def _report(self, broken: Sequence[str]) -> None:
        """Name each broken image once; how often one was skipped is in the metrics."""
        for line in dict.fromkeys(broken):
            if line not in self.broken:
                self.broken.add(line)
                self.log.say(f"skipped, {len(self.broken)} so far: {line}")

    def _record(self, step: int) -> None:
        values = self.meter.read()
        self._check()
        if not values:  # recorded already
            return
        shared = self.cluster.all_reduce_sum(np.array([values["skipped"], values["data_wait"]])).tolist()
        values |= {"skipped": shared[0], "data_wait": shared[1] / self.cluster.processes}
        self.log.record(step, self.schedule.epoch(step), {"lr": self.schedule.lr(step - 1), **values})

    def _check(self) -> None:
        """TrainError once an update has broken, which all processes see at the same time."""
        first = self.meter.unsound
        if first is None:
            return
        what = f"loss is {first.loss}" if first.loss - first.loss else f"gradient's norm is {first.grad_norm}"
        raise TrainError(
            f"step {first.step}: the {what}; nothing was saved since it broke{self._evidence(first)}."
            " Lower --blr, set --clip_grad 1, or use --precision float32"
        )

    def _evidence(self, first: Update) -> str:
        """Where it is written how an update broke; nothing where another process writes it."""
        if self.cluster.rank:
            return ""
        self.saver.wait()
        good = checkpoint.latest(self.checkpoints)
        about = {**self.updates.about(first.step), "checkpoint": str(good) if good else None}
        try:
            return f", evidence in {evidence.write(self.config.run_dir, self.meter.recent, first, about)}"
        except OSError as error:
            return f" (evidence cannot be written: {error.strerror})"

    def _save(self, step: int) -> None:
        if not self.config.save_ckpt:
            return
        self.saver.wait()
        state = self.trainer.export()
        self.saved = step
        if state is not None:
            root, about, keep = self.checkpoints, self._about(step), self.config.save_ckpt_num
            self.saver.begin(lambda: checkpoint.save(root, step, state, about, keep))

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
        self.saver.wait()  # the scores of the best so far are known then
        raised = isinstance(self.log, RunLog) and bool(self.best.raised(scores))
        if self.cluster.all_reduce_sum(np.array([raised]))[0]:  # everybody exports, or nobody
            state = self.trainer.export()
            if state is not None:
                about = self._about(step)
                self.saver.begin(lambda: self.best.keep(step, scores, state, about))
