"""Pre-training: an FCMAE, its masked batches, and the picture of what it makes of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

import spec
from backends.protocol import Batch, Cluster, Optimizer, Trainer
from train.command.config import Config
from train.data.classes import describe
from train.data.decode import BrokenImage
from train.data.feed import Feed, read
from train.data.masks import random_masks
from train.data.sources import Source, open_source
from train.data.transforms import CropAndFlip, centre_crop
from train.record.pictures import reconstruct, triptych
from train.tasks.task import Review

BETAS = (0.9, 0.95)
PICTURED = 8
PICTURE_POSITION = 2**62  # masks of pictures come from positions that no run reaches


@dataclass(frozen=True)
class Masks:
    """The batch column that pre-training adds: one mask a position."""

    seed: int
    grid: tuple[int, int]
    visible: int

    def __call__(self, positions: np.ndarray, labels: np.ndarray) -> Batch:
        return {"mask": random_masks(self.seed, positions, self.grid, self.visible)}


class Pretraining:
    """What the loop asks of a task, for FCMAE; SpecError and TrainError for what cannot be."""

    name = "pretrain"

    def __init__(self, config: Config) -> None:
        self.config = config
        self.model = _model(config)
        self.source: Source = open_source(config.data_path)
        self.optimizer = Optimizer(weight_decay=config.weight_decay, betas=BETAS, clip_grad=config.clip_grad)
        self._masks = Masks(config.seed, self.model.grid, spec.visible_patches(self.model))

    def feed(self, rows: int, epoch_size: int) -> Feed:
        """Micro-batches of augmented images with their masks."""
        config = self.config
        return Feed(
            source=self.source,
            seed=config.seed,
            channels=config.in_chans,
            batch_size=rows,
            epoch_size=epoch_size,
            augment=CropAndFlip(config.image_size, config.crop_range, config.hflip, config.decode == "scaled"),
            extra=self._masks,
        )

    @property
    def review_freq(self) -> int:
        """Epochs between two pictures; 0 for none."""
        return self.config.picture_freq

    @property
    def meta(self) -> dict[str, Any]:
        """Nothing that its identity does not say."""
        return {}

    def summary(self) -> list[str]:
        """What is trained on, and how much of it is seen."""
        model, patches = self.model, self.model.grid[0] * self.model.grid[1]
        return [
            f"{describe(self.source)}; {spec.count(model):,} parameters,"
            f" {spec.visible_patches(model)} of {patches} patches visible"
        ]

    def first_arrays(self) -> None:
        """Those that the trainer draws."""

    def review(self, trainer: Trainer, cluster: Cluster) -> Review:
        """A picture of reconstructions."""
        return Review({}, [], self.picture(trainer))

    def picture(self, trainer: Trainer) -> Image.Image:
        """Originals, what the model sees of them, and what it makes of that."""
        batch = self._pictured
        predicted = trainer.evaluate(batch)["prediction"]
        images, mask = batch["images"], batch["mask"]
        rebuilt = reconstruct(images, mask, predicted, self.model, self.config.mean, self.config.std)
        return triptych(images, mask, rebuilt, self.model.encoder.patch_size)

    @cached_property
    def _pictured(self) -> Batch:
        """A few images spread over the source, whole, each with the same mask all through the run."""
        count = min(PICTURED, len(self.source))
        starts = np.linspace(0, len(self.source), count, endpoint=False).astype(int)
        images = np.stack([centre_crop(self._readable(start), self.config.image_size) for start in starts.tolist()])
        return {"images": images, **self._masks(PICTURE_POSITION + np.arange(count), starts)}

    def _readable(self, start: int) -> np.ndarray:
        """The first image from `start` on that is not broken (the first batch has shown that there are some)."""
        index = start
        while True:
            try:
                return read(self.source, index % len(self.source), self.config.in_chans)[0]
            except BrokenImage:
                index += 1


def _model(config: Config) -> spec.FCMAE:
    sizes = {"depths": config.depths, "dims": config.dims}
    return spec.fcmae(
        config.model,
        image_size=config.image_size,
        mask_ratio=config.mask_ratio,
        decoder_depth=config.decoder_depth,
        decoder_dim=config.decoder_embed_dim,
        norm_target=config.norm_pix_loss,
        in_chans=config.in_chans,
        patch_size=config.patch_size,
        grn_scope=config.grn_scope,
        **{name: value for name, value in sizes.items() if value is not None},
    )
