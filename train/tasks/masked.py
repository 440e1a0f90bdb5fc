"""The masked loss of an autoencoder over every image once."""

import numpy as np

import spec
from backends.protocol import Cluster, Trainer
from train.config import Config
from train.data.supervised import EvalBatches
from train.report.pictures import masked_losses
from train.tasks.accuracy import coverage
from train.tasks.inference import own_batches
from train.tasks.pretrain import PICTURE_POSITION, masks_of
from train.tasks.task import Evaluation

NORMALISED = ((0.0,), (1.0,))
"""The mean and std of images that are normalised."""


def masked_loss(
    trainer: Trainer, cluster: Cluster, config: Config, model: spec.FCMAE, batches: EvalBatches
) -> Evaluation:
    """The mean over the images of the masked loss of each. Its mask depends on --seed and its number in the source."""
    draw, total, broken = masks_of(config, model), np.zeros(2), []
    for index, batch, lines in own_batches(batches, cluster, config.data.num_workers):
        images, mask = batch["images"], draw(PICTURE_POSITION + index, batch["labels"])["mask"]
        unit = (config.data.mean, config.data.std) if images.dtype == np.uint8 else NORMALISED
        prediction = trainer.evaluate({"images": images, "mask": mask})["prediction"]
        losses = masked_losses(images, mask, prediction, model, *unit)[batch["labels"] >= 0]
        total += losses.sum(), len(losses)
        broken += lines
    summed, read = cluster.all_reduce_sum(total).tolist()
    covered = coverage(int(read), len(batches.source), broken)
    return Evaluation({"masked_loss": summed / read}, broken, covered)
