"""Batches of a source for a model that is not trained, and the model's outputs, image by image."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from backends.protocol import Arrays, Backend, Batch, Cluster, Trainer
from train.config import Config
from train.data.feed import RankShard
from train.data.pipeline import prefetch
from train.data.supervised import EvalBatches
from train.errors import TrainError


class Outputs(NamedTuple):
    """The model's outputs for the images of a batch that could be read, and a line for each other image.

    numbers (N,): those of the images in the source; labels (N,); values: name -> (N, ...).
    """

    numbers: np.ndarray
    labels: np.ndarray
    values: Arrays
    broken: list[str]


def one_process(config: Config, load: Callable[[str], Backend]) -> tuple[Backend, Cluster]:
    """The backend and its cluster, for a task that takes a single process; TrainError if there are several."""
    backend = load(config.run.backend)
    backend.use_compilation_cache(config.run.compilation_cache)
    cluster = backend.init_cluster(config.run.device)
    if cluster.processes > 1:
        raise TrainError(f"--task {config.run.task}: {cluster.processes} processes were started, it takes one")
    return backend, cluster


def own_batches(
    batches: EvalBatches, cluster: Cluster, workers: int, start: int = 0
) -> Iterator[tuple[np.ndarray, Batch, list[str]]]:
    """For each batch of this process: the index (N,) of its rows in the source, and what EvalBatches makes.

    batches: of the size of one device. Process r of P gets batches r, r + P, ... from the process's batch `start`
    on; those past the last one are only padding.
    """
    batches = replace(batches, batch_size=batches.batch_size * cluster.devices)
    own, rounds = RankShard(batches, cluster.rank, cluster.processes), -(-len(batches) // cluster.processes)
    with closing(prefetch(own, start, rounds, workers)) as prefetched:
        for number, (batch, broken) in enumerate(prefetched, start):
            first = (number * cluster.processes + cluster.rank) * batches.batch_size
            yield first + np.arange(batches.batch_size), batch, broken


def outputs(
    trainer: Trainer, cluster: Cluster, batches: EvalBatches, workers: int, start: int = 0
) -> Iterator[Outputs]:
    """The outputs for each batch of this process, from its batch `start` on."""
    for index, batch, broken in own_batches(batches, cluster, workers, start):
        real = batch["labels"] >= 0
        values = {name: value[real] for name, value in trainer.evaluate({"images": batch["images"]}).items()}
        yield Outputs(index[real], batch["labels"][real], values, broken)
