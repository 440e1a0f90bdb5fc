"""The masked loss of an autoencoder over every image once."""

from dataclasses import replace

import numpy as np

import spec
from backends.protocol import Cluster, Trainer
from train.config import Config
from train.data.masks import masks_of
from train.data.no_data import split
from train.data.pixels import batched
from train.data.supervised import EvalBatches
from train.report.pictures import masked_losses
from train.tasks.accuracy import coverage
from train.tasks.inference import own_batches
from train.tasks.pretrain import PICTURE_POSITION
from train.tasks.task import Evaluation


def masked_loss(
    trainer: Trainer, cluster: Cluster, config: Config, model: spec.FCMAE, batches: EvalBatches
) -> Evaluation:
    """The mean over the images of the masked loss of each. Its mask depends on --seed and its number in the source."""
    draw, total, broken = masks_of(config, model, batches.source), np.zeros(2), []
    mean, std, plain = config.data.mean, config.data.std, replace(batches, mean=(0.0,), std=(1.0,))
    for index, batch, lines in own_batches(plain, cluster, config.data.num_workers):
        images, no_data = split(batch["images"], model.encoder.in_chans)
        mask = draw(PICTURE_POSITION + index, images, no_data)["mask"]
        prediction = trainer.evaluate({"images": batched(images, mean, std), "mask": mask})["prediction"]
        losses = masked_losses(images, mask, prediction, model, mean, std)[batch["labels"] >= 0]
        total += losses.sum(), len(losses)
        broken += lines
    summed, read = cluster.all_reduce_sum(total).tolist()
    covered = coverage(int(read), len(batches.source), broken)
    return Evaluation({"masked_loss": summed / read}, broken, covered)
