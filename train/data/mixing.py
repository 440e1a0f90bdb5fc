"""Mixup and cutmix: blend pairs of images and their labels.

The published scripts draw one ratio per device and step and pair a device's batch with itself in
reverse order. Here pairs are formed inside groups of `group` consecutive positions of the run,
so they do not depend on the number of devices or micro-batches.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from backends.rng import Stream, uniform, words
from train.data.transforms import Draws

PAIRS = 256  # tries at a beta variate: for shape 1, 1 in 2 is accepted; for shape 2, 1 in 6


class Blend(NamedTuple):
    """The weight of the image itself, and the box (top, left, bottom, right) copied from its partner."""

    own: float
    box: tuple[int, int, int, int] | None


Blends = list[tuple[slice, Blend]]
"""Rows of a batch and the blend of their group."""


@dataclass(frozen=True)
class Mix:
    """Mixup and cutmix in batch mode. mixup, cutmix: alpha of the beta distribution; 0 turns it off."""

    seed: int
    group: int
    mixup: float
    cutmix: float
    prob: float = 1.0
    switch_prob: float = 0.5

    def partners(self, positions: np.ndarray) -> np.ndarray:
        """(N,) positions of the partners: each group in reverse order."""
        start = positions // self.group * self.group
        return start + (self.group - 1) - (positions - start)

    def blend(self, group: int, height: int, width: int) -> Blend:
        """The blend of group number `group`."""
        draws = Draws(self.seed, Stream.MIX, group, 4)
        mixes, switch, row, column = (draws.uniform(0, 1) for _ in range(4))
        if mixes >= self.prob:
            return Blend(1.0, None)
        cuts = self.cutmix > 0 and (self.mixup == 0 or switch < self.switch_prob)
        own = _beta(self.cutmix if cuts else self.mixup, words(self.seed, Stream.MIX, group, 4 + 2 * PAIRS)[4:])
        if not cuts or own == 1:
            return Blend(own, None)
        box = _box(own, height, width, int(row * height), int(column * width))
        return Blend(1.0 - (box[2] - box[0]) * (box[3] - box[1]) / (height * width), box)

    def blends(self, positions: np.ndarray, height: int, width: int) -> Blends:
        """The rows and the blend of each group among consecutive positions."""
        numbers = positions // self.group
        edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(positions)]
        return [(slice(*span), self.blend(int(numbers[span[0]]), height, width)) for span in pairwise(edges)]


def blend_images(images: np.ndarray, own: np.ndarray, partners: np.ndarray, blends: Blends) -> np.ndarray:
    """(N, H, W, C) float32: weighted means of images and partners, or images with a box of their partners.

    own, partners: (N,) indices into `images`. One image at a time, which stays in the CPU cache.
    """
    mixed = np.empty((len(own), *images.shape[1:]), np.float32)
    for rows, blend in blends:
        for target, one, other in zip(mixed[rows], own[rows].tolist(), partners[rows].tolist(), strict=True):
            _blend(target, images[one], images[other], blend)
    return mixed


def _blend(target: np.ndarray, one: np.ndarray, other: np.ndarray, blend: Blend) -> None:
    share, box = blend
    if box is None and share < 1:
        np.multiply(one, np.float32(share), out=target)
        target += other * np.float32(1 - share)
        return
    target[:] = one
    if box is not None:
        top, left, bottom, right = box
        target[top:bottom, left:right] = other[top:bottom, left:right]


def blend_targets(targets: np.ndarray, partners: np.ndarray, blends: Blends) -> np.ndarray:
    """(N, classes) float32: the targets, blended with the weights of the images."""
    mixed = targets.copy()
    for rows, (share, _) in blends:
        mixed[rows] = targets[rows] * np.float32(share) + partners[rows] * np.float32(1 - share)
    return mixed


def soft_targets(labels: np.ndarray, classes: int, smoothing: float) -> np.ndarray:
    """(N, classes) float32: smoothing / classes everywhere, plus 1 - smoothing at the label."""
    off = smoothing / classes
    targets = np.full((len(labels), classes), off, np.float32)
    targets[np.arange(len(labels)), labels] = 1.0 - smoothing + off
    return targets


def _beta(shape: float, raw: np.ndarray) -> float:
    """A Beta(a, a) variate, a <= 2, by Johnk: x / (x + y) of the first x = u^(1/a), y = v^(1/a) with x + y <= 1."""
    x, y = uniform(raw).reshape(2, -1) ** (1 / shape)
    first = np.argmax((x + y > 0) & (x + y <= 1))
    return float(x[first] / (x[first] + y[first]))


def _box(own: float, height: int, width: int, row: int, column: int) -> tuple[int, int, int, int]:
    """A box with a share 1 - own of the image's area, centred on (row, column) and clipped at the border."""
    h, w = int(height * np.sqrt(1 - own)), int(width * np.sqrt(1 - own))
    top, left = max(0, row - h // 2), max(0, column - w // 2)
    return top, left, min(height, row + (h + 1) // 2), min(width, column + (w + 1) // 2)
