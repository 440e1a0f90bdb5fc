"""Batches with labels: for training a classifier, and for judging one."""

from dataclasses import dataclass

import numpy as np

from backends.protocol import Batch
from train.data.decode import BrokenImage, Least
from train.data.feed import Samples, read
from train.data.mixing import Mix, blend_images, blend_targets, soft_targets
from train.data.paths import keep_paths
from train.data.pixels import Erase, normalise
from train.data.randaugment import RandAugment
from train.data.sources import Source
from train.data.transforms import CropAndFlip, Draws, resize

PADDING = -1
"""The label of a row that only fills up a batch."""

WARPED = 384
"""From this size on, evaluation takes the whole image, as the published script does."""


@dataclass(frozen=True)
class CropAndAugment:
    """The published order on bytes: random crop, flip, RandAugment."""

    crop: CropAndFlip
    policy: RandAugment | None

    def __call__(self, image: np.ndarray, draws: Draws) -> np.ndarray:
        image = self.crop(image, draws)
        return image if self.policy is None else self.policy(image, draws)

    def least(self, draws: Draws) -> Least | None:
        return self.crop.least(draws)


@dataclass(frozen=True)
class SupervisedFeed(Samples):
    """Micro-batch `index` of a run that trains a classifier: images, soft targets, drop-path decisions.

    rates: the probability with which each block is skipped. Images are bytes unless they are
    erased or mixed, for which they are normalised here.
    """

    classes: int
    smoothing: float
    rates: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    erase: Erase | None
    mix: Mix | None

    def __call__(self, index: int) -> tuple[Batch, list[str]]:
        """The batch, and a line for each broken image that another one stands in for."""
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
        """A group that reaches past the batch is read past it: its images do not depend on the batch."""
        places, rows = np.unique(np.concatenate([positions, mix.partners(positions)]), return_inverse=True)
        own, partners = rows.reshape(2, -1)
        images, labels, broken = self.samples(places)
        pixels, targets = self._pixels(images, places), soft_targets(labels, self.classes, self.smoothing)
        blends = mix.blends(positions, *images.shape[1:3])
        mixed = blend_images(pixels, own, partners, blends)
        return {"images": mixed, "targets": blend_targets(targets[own], targets[partners], blends)}, broken

    def _pixels(self, images: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Bytes as they are, or normalised and erased."""
        if self.erase is None and self.mix is None:
            return images
        pixels = normalise(images, self.mean, self.std)
        if self.erase is not None:
            for image, position in zip(pixels, positions.tolist(), strict=True):
                self.erase(image, position)
        return pixels


@dataclass(frozen=True)
class Views:
    """Batch `index` of an evaluation: every image once, in order, the last batch filled up with label -1.

    labels: the model's label for each of the source's; an image that cannot be read counts as padding.
    """

    source: Source
    labels: tuple[int, ...]
    channels: int
    size: tuple[int, int]
    crop_pct: float
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def __call__(self, index: int) -> tuple[Batch, list[str]]:
        """The batch, and a line for each image that cannot be read."""
        start = index * self.batch_size
        images = np.zeros((self.batch_size, *self.size, self.channels), np.uint8)
        labels = np.full(self.batch_size, PADDING, np.int32)
        broken = []
        for row, item in enumerate(range(start, min(start + self.batch_size, len(self.source)))):
            try:
                image, label = read(self.source, item, self.channels)
            except BrokenImage as error:
                broken.append(str(error))
            else:
                images[row], labels[row] = view(image, self.size, self.crop_pct), self.labels[label]
        return {"images": images, "labels": labels}, broken


def view(image: np.ndarray, size: tuple[int, int], crop_pct: float) -> np.ndarray:
    """The image as it is judged: resized to cover size / crop_pct, its centre cut out; from 384 px on, warped."""
    if min(size) >= WARPED:
        return resize(image, size)
    height, width = image.shape[:2]
    least = int(size[0] / crop_pct), int(size[1] / crop_pct)
    if least[0] * width >= least[1] * height:
        image = resize(image, (least[0], int(width * least[0] / height)))
    else:
        image = resize(image, (int(height * least[1] / width), least[1]))
    top, left = (round((image.shape[axis] - size[axis]) / 2) for axis in (0, 1))
    return image[top : top + size[0], left : left + size[1]]
