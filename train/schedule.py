"""The learning rate of every update."""

import math
from dataclasses import dataclass
from typing import Self

from train.config import Config
from train.errors import TrainError


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0, then half a cosine from `peak` to `floor`, over fractional epochs.

    peak * e / warmup for e < warmup, then floor + (peak - floor) (1 + cos(pi (e - warmup) /
    (epochs - warmup))) / 2, with e = update / updates_per_epoch: each update has its own.
    """

    peak: float
    floor: float
    warmup: float
    epochs: float
    updates_per_epoch: int

    @classmethod
    def of(cls, config: Config, images: int) -> Self:
        """The schedule of a run over a number of images; TrainError if they fill no update, and none may be partial."""
        size, asked = config.effective_batch, config.optimizer
        updates = images // size if asked.drop_last else -(-images // size)
        if not updates:
            raise TrainError(
                f"--batch_size {asked.batch_size} x --update_freq {asked.update_freq}: an update takes"
                f" {size:,} images, the data has {images:,}; lower one of them"
            )
        steps = config.checkpoints.max_steps
        epochs = asked.epochs if steps is None else steps / updates
        return cls(config.peak_lr, asked.min_lr, asked.warmup_epochs, epochs, updates)

    @property
    def updates(self) -> int:
        """The number of updates of the whole run."""
        return round(self.epochs * self.updates_per_epoch)

    def epoch(self, update: int) -> float:
        return update / self.updates_per_epoch

    def lr(self, update: int) -> float:
        """The learning rate of update number `update`, counted from 0."""
        epoch = self.epoch(update)
        if epoch < self.warmup:
            return self.peak * epoch / self.warmup
        progress = (epoch - self.warmup) / (self.epochs - self.warmup)
        return self.floor + (self.peak - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))

    def highest_lr(self) -> float:
        """The highest learning rate of the run: the peak, unless the run ends within the warm-up."""
        return self.peak if self.warmup < self.epochs else self.lr(self.updates - 1)
