"""Top-1 and top-5 accuracy of a classifier over every image once."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np

from backends.protocol import Cluster, Trainer
from train.config import Config
from train.data.feed import RankShard
from train.data.pipeline import prefetch
from train.data.sources import Source
from train.data.supervised import Coverage, EvalBatches
from train.errors import TrainError
from train.tasks.task import Evaluation

CROP_PCT = 224 / 256
TOP = 5


class Score:
    """Counts over the rows seen so far; rows with label -1 are padding and do not count."""

    def __init__(self) -> None:
        self.images = self.top1 = self.top5 = self.loss = 0.0

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """logits (N, classes); labels (N,). Ties go to the lower class."""
        real = labels >= 0
        logits, labels = np.asarray(logits, np.float64)[real], labels[real]
        hits = np.argsort(-logits, axis=1, kind="stable")[:, :TOP] == labels[:, None]
        shifted = logits - logits.max(1, keepdims=True, initial=-np.inf)
        log = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        self.images += len(labels)
        self.top1 += int(hits[:, 0].sum())
        self.top5 += int(hits.sum())
        self.loss -= float(log[np.arange(len(labels)), labels].sum())

    def read(self, cluster: Cluster) -> dict[str, float]:
        """acc1 and acc5 in per cent and the mean cross-entropy val_loss, over the rows of all processes."""
        counts = np.array([self.images, self.top1, self.top5, self.loss])
        images, top1, top5, loss = cluster.all_reduce_sum(counts).tolist()
        count = max(images, 1)
        return {"acc1": 100 * top1 / count, "acc5": 100 * top5 / count, "val_loss": loss / count}


def evaluate(trainer: Trainer, cluster: Cluster, batches: EvalBatches, workers: int, with_ema: bool) -> Evaluation:
    """The scores of the parameters and, with_ema, of their EMA (names end in _ema). TrainError if no image can be read.

    Process r of P evaluates batches r, r + P, ...; batches past the last one are only padding.
    """
    scores = {ema: Score() for ema in ((False, True) if with_ema else (False,))}
    broken = []
    batches = replace(batches, batch_size=batches.batch_size * cluster.devices)
    own, rounds = RankShard(batches, cluster.rank, cluster.processes), -(-len(batches) // cluster.processes)
    with closing(prefetch(own, 0, rounds, workers)) as prefetched:
        for batch, lines in prefetched:
            broken += lines
            for ema, score in scores.items():
                score.add(trainer.evaluate({"images": batch["images"]}, ema=ema)["logits"], batch["labels"])
    read = int(cluster.all_reduce_sum(np.array([scores[False].images]))[0])
    covered = coverage(read, len(batches.source), broken)
    named = [("_ema" if ema else "", score.read(cluster)) for ema, score in scores.items()]
    values = {f"{name}{suffix}": value for suffix, values in named for name, value in values.items()}
    return Evaluation(values, broken, covered)


def coverage(read: int, total: int, broken: Sequence[str]) -> Coverage:
    """How many images could be read; TrainError if none."""
    if not read:
        raise TrainError(f"none of the {total:,} images to evaluate on can be read; {'; '.join(broken[:1])}")
    return Coverage(read, total)


def eval_batches(config: Config, source: Source, labels: tuple[int, ...]) -> EvalBatches:
    """The batches of an evaluation. labels: the model's class index for each class of the source."""
    return EvalBatches(
        source,
        labels,
        config.model.in_chans,
        config.data.image_size,
        crop_pct(config),
        config.optimizer.batch_size,
        config.data.mean,
        config.data.std,
    )


def crop_pct(config: Config) -> float:
    """The fraction of the image that the centre crop takes."""
    return CROP_PCT if config.finetune.crop_pct is None else config.finetune.crop_pct
