"""What the loop asks of a task: a model, its batches, and a look at it on the way."""

from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

import spec
from backends.protocol import Arrays, Batch, Cluster, Optimizer, Trainer
from train.data.sources import Source


class Review(NamedTuple):
    """A look at a model in training: its scores, the images that could not be judged, a picture."""

    scores: dict[str, float]
    skipped: list[str]
    picture: Image.Image | None


class Feed(Protocol):
    """Micro-batches by number."""

    def __call__(self, index: int) -> tuple[Batch, list[str]]:
        """The batch, and a line for each broken image that another one stands in for."""

    def positions(self, index: int) -> np.ndarray:
        """(N,) the places in the run of its samples."""

    def key(self, position: int) -> str:
        """What names the item at a place to the user."""


class Task(Protocol):
    """Pre-training or fine-tuning; made from a Config, with SpecError and TrainError for what cannot be."""

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
    def review_freq(self) -> int:
        """Epochs between two reviews; 0 for none."""

    @property
    def meta(self) -> dict[str, Any]:
        """What its checkpoints should say of themselves, as JSON knows it."""

    def summary(self) -> list[str]:
        """Lines for the user before the first update."""

    def feed(self, rows: int, epoch_size: int) -> Feed:
        """Micro-batches of so many rows each; images an epoch."""

    def first_arrays(self) -> Arrays | None:
        """The parameters before the first update; None for those that the trainer draws."""

    def review(self, trainer: Trainer, cluster: Cluster) -> Review:
        """A look at the model as it is now."""
