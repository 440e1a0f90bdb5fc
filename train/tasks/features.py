"""Features of images from a frozen encoder, computed once, for the probes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

import spec
from backends.protocol import Arrays, Cluster, Trainer
from train.config import Config
from train.data.classes import match
from train.data.sources import Source
from train.data.supervised import Coverage
from train.tasks import weights
from train.tasks.accuracy import coverage, eval_batches
from train.tasks.finetune import model_of
from train.tasks.inference import outputs

MEANING = "mean of the last stage over H and W, then the last norm (without scale and shift if they are untrained)"


class Features(NamedTuple):
    """values (N, C), as MEANING says; labels (N,), the class of each."""

    values: np.ndarray
    labels: np.ndarray


def encoder(config: Config, classes: int) -> tuple[spec.Classifier, Arrays]:
    """The encoder in a checkpoint, or an untrained one of the flags' model, under a head; and its parameters.

    A checkpoint of pre-training has no last norm: its scale is then 1 and its shift 0. --grn_scope
    sets what GRN sums over, so that features do not depend on the batch by default.
    """
    if not (config.finetune.finetune or config.checkpoints.resume):
        model, path = model_of(config, classes), ""
    else:
        path = weights.path_of(config)
        found = weights.load(path).model
        weights.check_flags(config, path, found)
        own = weights.with_grn_scope(found.encoder, config.model.grn_scope)
        model = spec.Classifier(replace(own, drop_path=0.0), classes)
    return model, weights.first_arrays(model, config.run.seed, path)


def stages_encoder(config: Config) -> tuple[spec.Backbone, Arrays]:
    """The encoder in a checkpoint, whose outputs are the feature maps of its stages, and its parameters."""
    model = spec.Backbone(encoder(config, 0)[0].encoder)
    return model, weights.first_arrays(model, config.run.seed, weights.path_of(config))


def extract(
    config: Config, trainer: Trainer, cluster: Cluster, source: Source, classes: Sequence[str]
) -> tuple[Features, list[str], Coverage]:
    """The features of every image in order, a line for each that cannot be read, which is left out, and how many are.

    classes: those of the training images; a label is an index into them. TrainError if no image can be read.
    """
    values, labels, broken = [], [], []
    batches = eval_batches(config, source, match(classes, source.classes).index)
    for found in outputs(trainer, cluster, batches, config.data.num_workers):
        values.append(found.values["features"])
        labels.append(found.labels)
        broken += found.broken
    features = Features(np.concatenate(values), np.concatenate(labels))
    return features, broken, coverage(len(features.labels), len(source), broken)
