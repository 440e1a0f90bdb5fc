"""What the loop asks of a task: a model, its batches, and a look at it on the way."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from PIL import Image

import spec
from backends.protocol import Arrays, Batch, Cluster, Optimizer, Trainer
from train.data.sources import Source


class Review(NamedTuple):
    """A look at a model in training: its scores, the images that could not be judged, a picture."""

    scores: dict[str, float]
    skipped: list[str]
    picture: Image.Image | None


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

    def feed(self, rows: int, epoch_size: int) -> Callable[[int], tuple[Batch, list[str]]]:
        """Micro-batch of so many rows by number, and a line for each broken image in it; images an epoch."""

    def first_arrays(self) -> Arrays | None:
        """The parameters before the first update; None for those that the trainer draws."""

    def review(self, trainer: Trainer, cluster: Cluster) -> Review:
        """A look at the model as it is now."""
