"""Labelled batches: to train a classifier and to evaluate one."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from backends.protocol import Batch
from convert.preparation import RESIZE_ONLY
from train.data.decode import BrokenImage, MinSize
from train.data.drop_path import keep_paths
from train.data.feed import Samples, read_with_mask
from train.data.mixing import Mix, blend_images, blend_targets, soft_targets
from train.data.pixels import Erase, batched, normalise
from train.data.randaugment import RandAugment
from train.data.sources import Source
from train.data.transforms import CropAndFlip, Draws, resize

PADDING = -1
"""The label of rows that pad the last batch, and of images that cannot be read."""


@dataclass(frozen=True)
class CropAndAugment:
    """Random crop, flip, RandAugment on uint8, in the published order."""

    crop: CropAndFlip
    policy: RandAugment | None

    def __call__(self, image: np.ndarray, draws: Draws) -> np.ndarray:
        image = self.crop(image, draws)
        return image if self.policy is None else self.policy(image, draws)

    def min_size(self, draws: Draws) -> MinSize | None:
        return self.crop.min_size(draws)


@dataclass(frozen=True)
class SupervisedFeed(Samples):
    """Micro-batch `index` of fine-tuning: images, soft targets, drop-path decisions.

    rates: drop-path rate per block. Images are uint8; those of another type, and those that are erased
    or mixed, are normalised first and are float32.
    """

    classes: int
    smoothing: float
    rates: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    erase: Erase | None
    mix: Mix | None

    def __call__(self, index: int) -> tuple[Batch, list[str]]:
        """The batch, and one line per broken image that was replaced by the next one."""
        positions = self.positions(index)
        batch, broken = self._plain(positions) if self.mix is None else self._mixed(self.mix, positions)
        if any(self.rates):
            batch["keep_paths"] = keep_paths(self.seed, positions, self.rates)
        return batch, broken

    def _plain(self, positions: np.ndarray) -> tuple[Batch, list[str]]:
        images, labels, broken = self.samples(positions)
        targets = soft_targets(labels, self.classes, self.smoothing)
        return {"images": self._pixels(images, positions), "targets": targets}, broken

    def _mixed(self, mix: Mix, positions: np.ndarray) -> tuple[Batch, list[str]]:
        """Reads the partners outside the batch too, so that samples do not depend on the batch size."""
        places, rows = np.unique(np.concatenate([positions, mix.partners(positions)]), return_inverse=True)
        own, partners = rows.reshape(2, -1)
        images, labels, broken = self.samples(places)
        pixels, targets = self._pixels(images, places), soft_targets(labels, self.classes, self.smoothing)
        blends = mix.blends(positions, *images.shape[1:3])
        mixed = blend_images(pixels, own, partners, blends)
        return {"images": mixed, "targets": blend_targets(targets[own], targets[partners], blends)}, broken

    def _pixels(self, images: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """uint8 unchanged, or float32 normalised and erased."""
        if self.erase is None and self.mix is None:
            return batched(images, self.mean, self.std)
        pixels = normalise(images, self.mean, self.std)
        if self.erase is not None:
            for image, position in zip(pixels, positions.tolist(), strict=True):
                self.erase(image, position)
        return pixels


@dataclass(frozen=True)
class EvalBatches:
    """Batch `index` of an evaluation: each image once, in order; the last batch is padded with label -1.

    labels: the model's class index for each class of the source. An image that cannot be read
    has label -1 too, and a line in the second value. Where the data has masks, they are one more channel.
    mean, std: normalise images that are not uint8.
    """

    source: Source
    labels: tuple[int, ...]
    channels: int
    size: tuple[int, int]
    crop_pct: float
    batch_size: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def __call__(self, index: int) -> tuple[Batch, list[str]]:
        """The batch, and one line per image that cannot be read."""
        start = index * self.batch_size
        kind = np.uint8 if self.source.reading.values.dtype == "uint8" else np.float32
        images = np.zeros((self.batch_size, *self.size, self.channels + self.source.reading.masked), kind)
        labels = np.full(self.batch_size, PADDING, np.int32)
        broken = []
        for row, item in enumerate(range(start, min(start + self.batch_size, len(self.source)))):
            try:
                image, label = read_with_mask(self.source, item, self.channels)
            except BrokenImage as error:
                broken.append(str(error))
            else:
                images[row], labels[row] = eval_crop(image, self.size, self.crop_pct), self.labels[label]
        return {"images": batched(images, self.mean, self.std), "labels": labels}, broken


class Coverage(NamedTuple):
    """How many images a score is of. As text, what to print after it: nothing if all could be read."""

    images: int
    total: int

    @property
    def skipped(self) -> int:
        return self.total - self.images

    def __str__(self) -> str:
        if not self.skipped:
            return ""
        return f", over {self.images:,} of {self.total:,} images ({self.skipped:,} could not be read)"


def eval_crop(image: np.ndarray, size: tuple[int, int], crop_pct: float) -> np.ndarray:
    """Centre crop for evaluation: resize to cover size / crop_pct, then crop; from 384 px on, resize only."""
    if min(size) >= RESIZE_ONLY:
        return resize(image, size)
    height, width = image.shape[:2]
    least = int(size[0] / crop_pct), int(size[1] / crop_pct)
    if least[0] * width >= least[1] * height:
        image = resize(image, (least[0], int(width * least[0] / height)))
    else:
        image = resize(image, (int(height * least[1] / width), least[1]))
    top, left = (round((image.shape[axis] - size[axis]) / 2) for axis in (0, 1))
    return image[top : top + size[0], left : left + size[1]]
