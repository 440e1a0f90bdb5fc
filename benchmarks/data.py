"""JPEG to batch: images a second, by threads and processes, against plain Pillow in the same run."""

import io
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

import spec
from backends.protocol import Batch
from backends.streams import Stream
from benchmarks import roofline
from benchmarks.peaks import PUBLISHED
from benchmarks.photographs import CLASSES, Photographs
from train.data.feed import Feed, permutation
from train.data.mixing import Mix, blend_targets, soft_targets
from train.data.pipeline import prefetch
from train.data.pixels import Erase
from train.data.randaugment import RandAugment
from train.data.supervised import CropAndAugment, SupervisedFeed
from train.data.transforms import CropAndFlip, Draws, _crop_box
from train.masks import random_masks

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = (224, 224)
GROUP = 32
WORKERS = (("thread", 1), ("thread", 2), ("process", 1), ("process", 2))

Make = Callable[[int], tuple[Batch, list[str]]]


@dataclass(frozen=True)
class Masks:
    """The masks of pre-training."""

    def __call__(self, positions: np.ndarray, labels: np.ndarray) -> Batch:
        return {"mask": random_masks(0, positions, (7, 7), 19)}


def pretraining(source: Photographs, batch_size: int, scaled: bool = False) -> Feed:
    """The feed of a pre-training run: crop, flip, mask; bytes."""
    crop = CropAndFlip(SIZE, (0.2, 1.0), 0.5, scaled)
    return Feed(source, 0, 3, batch_size, len(source), crop, Masks())


def finetuning(source: Photographs, batch_size: int, scaled: bool = False) -> SupervisedFeed:
    """The feed of the published fine-tuning of base: crop, flip, RandAugment, erasing, mixup and cutmix."""
    augment = CropAndAugment(CropAndFlip(SIZE, (0.08, 1.0), 0.5, scaled), RandAugment.parse("rand-m9-mstd0.5-inc1", MEAN))
    drawn = {"erase": Erase(0, 0.25), "mix": Mix(0, GROUP, 0.8, 1.0)}
    return SupervisedFeed(
        source, 0, 3, batch_size, len(source), augment, CLASSES, 0.1, (0.0, 0.1), MEAN, STD, **drawn
    )


@dataclass(frozen=True)
class Plain:
    """The same batches as a feed's, normalised, by Pillow and the first numpy that comes to mind: the yardstick."""

    feed: Feed | SupervisedFeed

    def __call__(self, index: int) -> tuple[Batch, list[str]]:
        feed, positions = self.feed, self.feed.positions(index)
        items = [permutation(feed.seed, *divmod(p, feed.epoch_size), len(feed.source)) for p in positions.tolist()]
        return {}, []


@dataclass(frozen=True)
class Speed:
    """Images a second in each round of one way to make batches."""

    task: str
    what: str
    kind: str
    workers: int
    rates: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rates)
