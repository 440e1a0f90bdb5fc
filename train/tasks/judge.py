"""How good a classifier is: top-1 and top-5 accuracy over every image once."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np

from backends.protocol import Cluster, Trainer
from train.command.config import Config
from train.data.classes import match
from train.data.feed import RankShard
from train.data.pipeline import prefetch
from train.data.sources import Source
from train.data.supervised import EvalBatches

CROP_PCT = 224 / 256
TOP = 5


class Score:
    """Counts over the rows seen so far; rows of label -1 do not count."""

    def __init__(self) -> None:
        self.images = self.first = self.among = self.loss = 0.0

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """logits (N, classes); labels (N,). Of equal logits the lower class comes first."""
        real = labels >= 0
        logits, labels = np.asarray(logits, np.float64)[real], labels[real]
        hits = np.argsort(-logits, axis=1, kind="stable")[:, :TOP] == labels[:, None]
        shifted = logits - logits.max(1, keepdims=True, initial=-np.inf)
        log = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        self.images += len(labels)
        self.first += int(hits[:, 0].sum())
        self.among += int(hits.sum())
        self.loss -= float(log[np.arange(len(labels)), labels].sum())

    def read(self, cluster: Cluster) -> dict[str, float]:
        """acc1 and acc5 in per cent, and the mean cross-entropy val_loss, of the rows that all processes saw."""
        images, first, among, loss = cluster.all_reduce_sum(
            np.array([self.images, self.first, self.among, self.loss])
        ).tolist()
        count = max(images, 1)
        return {"acc1": 100 * first / count, "acc5": 100 * among / count, "val_loss": loss / count}


def judge(
    trainer: Trainer, cluster: Cluster, views: EvalBatches, workers: int, averaged: Sequence[bool]
) -> tuple[dict[str, float], list[str]]:
    """The scores of the parameters (False) and of their average (True, names ending in _ema); the images not read.

    The batches are dealt out to the processes; past the last one there is nothing but padding.
    """
    scores = {ema: Score() for ema in averaged}
    broken = []
    views = replace(views, batch_size=views.batch_size * cluster.devices)
    own, rounds = RankShard(views, cluster.rank, cluster.processes), -(-len(views) // cluster.processes)
    with closing(prefetch(own, 0, rounds, workers)) as batches:
        for batch, lines in batches:
            broken += lines
            for ema, score in scores.items():
                score.add(trainer.evaluate({"images": batch["images"]}, ema=ema)["logits"], batch["labels"])
    named = [("_ema" if ema else "", score.read(cluster)) for ema, score in scores.items()]
    return {f"{name}{suffix}": value for suffix, values in named for name, value in values.items()}, broken


def views(config: Config, source: Source, classes: Sequence[str]) -> EvalBatches:
    """The evaluation of a source's images by a model that knows some classes."""
    crop = CROP_PCT if config.crop_pct is None else config.crop_pct
    labels = match(classes, source.classes).index
    return EvalBatches(source, labels, config.in_chans, config.image_size, crop, config.batch_size)
