"""Pre-training of an FCMAE: its masked batches, and pictures of its reconstructions."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

import spec
from backends.protocol import Arrays, Batch, Cluster, Trainer
from train.config import Config
from train.config.groups import DataConfig
from train.config.inherit import VALUES
from train.data.classes import describe
from train.data.decode import BrokenImage
from train.data.feed import Feed, read_with_mask
from train.data.masks import describe_no_data, masks_of
from train.data.no_data import split
from train.data.pixels import batched
from train.data.reading import check_data, read_options
from train.data.sources import Source, open_source
from train.data.supervised import Coverage
from train.data.transforms import CropAndFlip, centre_crop
from train.errors import TrainError
from train.report.pictures import caption, reconstruct, triptych
from train.tasks import weights
from train.tasks.task import Evaluation

PICTURED = 8
PICTURE_POSITION = 2**62  # masks of pictures are drawn for positions that no run reaches


class Pretraining:
    """The task of training an FCMAE; SpecError or TrainError if the flags do not allow it."""

    name = "pretrain"

    def __init__(self, config: Config) -> None:
        self.config = config
        self.model = _model(config)
        _check(config)
        self.source: Source = open_source(config.data.data_path, options=read_options(config.data))
        self.values = check_data(config, self.source.reading)
        self.optimizer = config.adamw()
        self._masks = masks_of(config, self.model, self.source)

    def feed(self, rows: int, update_size: int, updates: int) -> Feed:
        """Micro-batches of augmented images with their masks."""
        config = self.config
        return Feed(
            source=self.source,
            seed=config.run.seed,
            channels=config.model.in_chans,
            batch_size=rows,
            epoch_rows=updates * update_size,
            augment=random_crop(config.data),
            extra=self._masks,
            update_size=None if config.optimizer.drop_last else update_size,
            mean=config.data.mean,
            std=config.data.std,
        )

    @property
    def eval_freq(self) -> int:
        """Draw reconstructions every N epochs (0: never)."""
        return self.config.run.picture_freq

    @property
    def meta(self) -> dict[str, Any]:
        """What the values of its images are."""
        return {VALUES: str(self.source.reading.values)}

    def summary(self) -> list[str]:
        """The images, the model, and how many patches are visible; the values of the images, and their pictures."""
        model, patches = self.model, self.model.grid[0] * self.model.grid[1]
        shown, kind = self.config.run.picture_channels, self.source.reading.values.dtype
        note = self.eval_freq and caption(model.encoder.in_chans, kind, shown)
        return [
            f"{describe(self.source)}; {spec.count(model):,} parameters,"
            f" {spec.visible_patches(model)} of {patches} patches visible",
            self.values,
            *[f"pictures: {note}"][: bool(note)],
            *describe_no_data(self.config, model, self.source),
        ]

    def first_arrays(self, say: Callable[[str], None]) -> Arrays | None:
        """Those of --init_from; None without it: use the trainer's initialisation."""
        start = self.config.checkpoints
        if not start.init_from:
            return None
        with weights.given_by("--init_from"):
            return weights.transferred(self.model, self.config.run.seed, start.init_from, start.init_scope, say)

    def evaluate(self, trainer: Trainer, cluster: Cluster) -> Evaluation:
        """A picture of reconstructions."""
        return Evaluation({}, [], Coverage(0, 0), self.picture(trainer))

    def picture(self, trainer: Trainer) -> Image.Image:
        """Originals, their visible patches, and the reconstructions."""
        images, column = self._pictured
        mask, mean, std = column["mask"], self.config.data.mean, self.config.data.std
        predicted = trainer.evaluate({"images": batched(images, mean, std), **column})["prediction"]
        reconstructed = reconstruct(images, mask, predicted, self.model, mean, std)
        channels = self.config.run.picture_channels
        return triptych(images, mask, reconstructed, self.model.encoder.patch_size, channels)

    @cached_property
    def _pictured(self) -> tuple[np.ndarray, Batch]:
        """A few images spread over the source, centre-cropped, and masks that stay the same throughout the run."""
        count = min(PICTURED, len(self.source))
        starts = np.linspace(0, len(self.source), count, endpoint=False).astype(int)
        crops = [centre_crop(self._readable(start), self.config.data.image_size) for start in starts.tolist()]
        images, no_data = split(np.stack(crops), self.config.model.in_chans)
        return images, self._masks(PICTURE_POSITION + np.arange(count), images, no_data)

    def _readable(self, start: int) -> np.ndarray:
        """The first readable image from `start` on. There is one: the first batch has been read."""
        index = start
        while True:
            try:
                return read_with_mask(self.source, index % len(self.source), self.config.model.in_chans)[0]
            except BrokenImage:
                index += 1


def random_crop(data: DataConfig) -> CropAndFlip:
    """The augmentation of pre-training, with which that of fine-tuning begins."""
    smallest, largest = data.crop_scale
    return CropAndFlip(data.image_size, (smallest, largest), data.hflip, data.decode == "scaled", data.rot90)


def _check(config: Config) -> None:
    """TrainError for flags that cannot be combined."""
    start = config.checkpoints
    if config.model.grn_scope == "batch" and not config.optimizer.drop_last:
        raise TrainError(
            "--drop_last False: the last batch is padded, and --grn_scope batch would sum over padding;"
            " give --grn_scope image, or --drop_last True"
        )
    if start.init_from and start.resume:
        raise TrainError("--init_from: --resume continues a run from its own weights; give one of them")
    if start.init_scope != "everything" and not start.init_from:
        raise TrainError(f"--init_scope {start.init_scope}: is for --init_from; give it, too, or leave this out")


def _model(config: Config) -> spec.FCMAE:
    return spec.fcmae(
        config.model.model,
        image_size=config.data.image_size,
        mask_ratio=config.model.mask_ratio,
        mask_rounding=config.model.mask_rounding,
        decoder_depth=config.model.decoder_depth,
        decoder_dim=config.model.decoder_embed_dim,
        norm_target=config.model.norm_pix_loss,
        **config.model.encoder,
    )
