"""`python -m experiments.pixel_probe FLAGS`: a probe run of `python -m train`, with pixels in place of features."""

import sys
from collections.abc import Sequence

import numpy as np

from train.config import Config
from train.config.cli import parse
from train.data.classes import match
from train.data.sources import Source
from train.tasks.accuracy import eval_batches
from train.tasks.features import Features
from train.tasks.finetune import classes_of, open_eval_source, open_labelled
from train.tasks.output import write_json
from train.tasks.probe import knn, linear


def main(argv: Sequence[str]) -> None:
    """Write probe.json."""
    config = parse(argv)
    source, held_out = open_labelled(config), open_eval_source(config)
    about = (config, pixels(config, source, source), pixels(config, held_out, source), classes_of(config, source))
    write_json(config, "probe.json", {"features": "pixels", "knn": knn(*about), "linear": linear(*about)})


def pixels(config: Config, images: Source, training: Source) -> Features:
    """The pixels of each image, in 0..1, cropped as in evaluation."""
    batches = eval_batches(config, images, match(training.classes, images.classes).index)
    found = [batches(index)[0] for index in range(len(batches))]
    values = np.concatenate([batch["images"] for batch in found])[: len(images)]
    labels = np.concatenate([batch["labels"] for batch in found])[: len(images)]
    return Features(values.reshape(len(values), -1) / 255, labels)


if __name__ == "__main__":
    main(sys.argv[1:])
