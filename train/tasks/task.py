"""The protocol between the training loop and a task: a model, its batches, and its evaluation."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

import spec
from backends.protocol import Arrays, Batch, Cluster, Optimizer, Trainer
from train.data.sources import Source
from train.data.supervised import Coverage


class Evaluation(NamedTuple):
    """Scores of a model, a line for each image that this process could not read, how many were read, a picture.

    confusions: suffix of the scores' names, "" or "_ema" -> (classes, classes) images by true and predicted class.
    """

    scores: dict[str, float]
    broken: list[str]
    coverage: Coverage
    picture: Image.Image | None = None
    confusions: Mapping[str, np.ndarray] = {}  # never changed


class Feed(Protocol):
    """Micro-batches by index."""

    def __call__(self, index: int) -> tuple[Batch, list[str]]:
        """The batch, and a line for each broken image that was replaced by another."""

    def positions(self, index: int) -> np.ndarray:
        """(N,) the positions of its samples in the run."""

    def key(self, position: int) -> str:
        """The name of the item at a position."""


class Task(Protocol):
    """Pre-training or fine-tuning. Made from a Config; raises SpecError or TrainError if that is not possible."""

    @property
    def name(self) -> str:
        """Its name on the command line."""

    @property
    def model(self) -> spec.Model: ...

    @property
    def source(self) -> Source: ...

    @property
    def optimizer(self) -> Optimizer: ...

    @property
    def eval_freq(self) -> int:
        """Evaluate every N epochs (0: never)."""

    @property
    def meta(self) -> dict[str, Any]:
        """Metadata for its checkpoints, as JSON types."""

    def summary(self) -> list[str]:
        """Lines to print before the first update."""

    def feed(self, rows: int, update_size: int, updates: int) -> Feed:
        """The micro-batches. rows: images per micro-batch; update_size: images per update; updates: per epoch."""

    def first_arrays(self, say: Callable[[str], None]) -> Arrays | None:
        """The parameters before the first update, with lines about them; None: the trainer's own initialisation."""

    def evaluate(self, trainer: Trainer, cluster: Cluster) -> Evaluation:
        """Evaluate the model as it is now."""
