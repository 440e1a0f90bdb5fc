"""The masks of a run: drawn on the host, the same number of removed patches for each image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import spec
from backends.protocol import Batch
from backends.rng import Stream, generator
from train.config import Config
from train.data import policies
from train.errors import TrainError


@dataclass(frozen=True)
class Masks:
    """The batch column that pre-training adds: one mask per position, by a policy."""

    seed: int
    grid: tuple[int, int]
    visible: int
    policy: str = "uniform"

    def __call__(self, positions: np.ndarray, images: Sequence[np.ndarray]) -> Batch:
        return {"mask": random_masks(self.seed, positions, self.grid, self.visible, self.policy, images)}


def masks_of(config: Config, model: spec.FCMAE) -> Masks:
    """The masks of a run's configuration; TrainError unless its policy returns masks, the same for the same draws."""
    masks = Masks(config.run.seed, model.grid, spec.visible_patches(model), config.model.mask_policy)
    noise = generator(0, Stream.MASK, 0).integers(0, 256, (*model.image_size, model.encoder.in_chans), np.uint8)
    first, second = (masks(np.zeros(1, int), [noise])["mask"] for _ in range(2))
    if (first != second).any():
        raise TrainError(
            f"--mask_policy {masks.policy}: returned two masks for the same arguments; draw from its rng only"
        )
    return masks


def random_masks(
    seed: int,
    positions: np.ndarray,
    grid: tuple[int, int],
    visible: int,
    policy: str = "uniform",
    images: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """(N, G_h, G_w) uint8, 1 = removed; `visible` patches are kept, which ones is up to the policy.

    positions: (N,) positions of the samples in the run, the index of the random stream. images: N of
    (H, W, C), as in the batch; only policies that look at them need them.
    """
    if images is None:
        images = [np.zeros((0, 0, 0), np.uint8)] * len(positions)
    return np.stack(
        [
            policies.apply(policy, generator(seed, Stream.MASK, position), grid, visible, image)
            for position, image in zip(positions.tolist(), images, strict=True)
        ]
    )
