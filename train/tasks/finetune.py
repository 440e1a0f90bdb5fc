"""Fine-tuning of a classifier, from a pre-trained encoder or from scratch, as published."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import spec
from backends.protocol import Arrays, Cluster, Trainer
from spec import checks
from train.config import Config
from train.config.inherit import VALUES
from train.data.classes import describe, listed, match, require_labels, require_several
from train.data.mixing import Mix
from train.data.pixels import Erase
from train.data.randaugment import RandAugment
from train.data.reading import check_data, read_options
from train.data.sources import Source, open_eval, open_source
from train.data.subset import labelled
from train.data.supervised import CropAndAugment, EvalBatches, SupervisedFeed
from train.data.values import Values
from train.errors import TrainError
from train.tasks.accuracy import eval_batches, evaluate
from train.tasks.pretrain import random_crop
from train.tasks.task import Evaluation
from train.tasks.weights import first_arrays, given_by


class Finetuning:
    """The task of training a classifier; SpecError or TrainError if the flags do not allow it."""

    name = "finetune"

    def __init__(self, config: Config) -> None:
        self.config = config
        self.source = open_labelled(config)
        self.model = model_of(config, classes_of(config, self.source))
        self.policy = _policy(config, self.source.reading.values)
        self.eval_batches = _eval_batches(config, self.source)
        evaluated = [self.eval_batches.source.reading] if self.eval_batches else []
        self.values = check_data(config, self.source.reading, *evaluated)
        self.optimizer = config.adamw()

    @property
    def eval_freq(self) -> int:
        """Evaluate every N epochs (0: never)."""
        return self.config.finetune.eval_freq if self.eval_batches else 0

    @property
    def meta(self) -> dict[str, Any]:
        """The classes, in the order of the head's outputs, and what the values of the images are."""
        return {"classes": list(self.source.classes), VALUES: str(self.source.reading.values)}

    def summary(self) -> list[str]:
        """The images to train and evaluate on, and the initial parameters."""
        lines = [f"training: {describe(self.source)}"]
        lines += [f"evaluation: {describe(self.eval_batches.source)}"] if self.eval_batches else []
        start = f"from {self.config.finetune.finetune}" if self.config.finetune.finetune else "from scratch"
        return [*lines, self.values, f"{spec.count(self.model):,} parameters, {start}"]

    def feed(self, rows: int, update_size: int, updates: int) -> SupervisedFeed:
        """Micro-batches of augmented, erased and mixed images with their soft targets and drop-path decisions."""
        config, seed = self.config, self.config.run.seed
        beta = (config.augment.mixup, config.augment.cutmix)
        return SupervisedFeed(
            source=self.source,
            seed=seed,
            channels=config.model.in_chans,
            batch_size=rows,
            epoch_rows=updates * update_size,
            augment=CropAndAugment(random_crop(config.data), self.policy),
            classes=self.model.num_classes,
            smoothing=config.augment.smoothing,
            rates=self.model.encoder.drop_path_rates(),
            mean=config.data.mean,
            std=config.data.std,
            erase=Erase(seed, config.augment.reprob, config.augment.remode, config.augment.recount)
            if config.augment.reprob
            else None,
            mix=Mix(seed, config.augment.mix_group, *beta, config.augment.mixup_prob, config.augment.mixup_switch_prob)
            if any(beta)
            else None,
        )

    def first_arrays(self, say: Callable[[str], None]) -> Arrays:
        """The parameters before the first update."""
        start = self.config.finetune
        model = replace(self.model, head_init_scale=start.head_init_scale)
        with given_by("--finetune"):
            return first_arrays(model, self.config.run.seed, start.finetune, say)

    def evaluate(self, trainer: Trainer, cluster: Cluster) -> Evaluation:
        """Accuracies on the validation images."""
        assert self.eval_batches is not None, "eval_freq is 0 without an evaluation"
        with_ema = self.config.finetune.model_ema_eval
        return evaluate(trainer, cluster, self.eval_batches, self.config.data.num_workers, with_ema)


def classes_of(config: Config, source: Source) -> int:
    """The number of classes of the data; TrainError if --nb_classes is another."""
    found = len(source.classes)
    if config.finetune.nb_classes not in (None, found):
        raise TrainError(
            f"--nb_classes {config.finetune.nb_classes}: the data has {found:,} classes ({listed(source.classes)});"
            f" give --nb_classes {found} or leave it out"
        )
    return require_several(source, f"--data_path {config.data.data_path}")


def model_of(config: Config, classes: int) -> spec.Classifier:
    """The classifier that the flags describe; SpecError if it is not possible."""
    model = spec.classifier(
        config.model.model, num_classes=classes, drop_path=config.finetune.drop_path, **config.model.encoder
    )
    checks.image_size(config.data.image_size, model.encoder.patch_size)
    return model


def _policy(config: Config, values: Values) -> RandAugment | None:
    if config.augment.aa == "none":
        return None
    channels = config.model.in_chans
    if channels not in (1, 3) or values.dtype != "uint8":
        raise TrainError(
            f"--aa {config.augment.aa}: is for uint8 images, grey or RGB, not for {channels} channels of"
            f" {values.dtype}; give --aa none"
        )
    return RandAugment.parse(config.augment.aa, config.data.mean)


def _eval_batches(config: Config, source: Source) -> EvalBatches | None:
    """The batches to evaluate on; None with --disable_eval."""
    if config.finetune.model_ema_eval and not config.finetune.model_ema:
        raise TrainError("--model_ema_eval True: there is no EMA to evaluate; give --model_ema True")
    if config.finetune.disable_eval:
        return None
    found = open_eval_source(config)
    return eval_batches(config, found, match(source.classes, found.classes).index)


def open_labelled(config: Config) -> Source:
    """The images to train on: all, or the number that --train_labels gives."""
    source = open_source(config.data.data_path, options=read_options(config.data))
    return labelled(source, config.finetune.train_labels, config.run.seed)


def open_eval_source(config: Config) -> Source:
    """The images to evaluate on; TrainError if there are none, or none with labels."""
    options, flag = read_options(config.data), "--data_path"
    if config.finetune.eval_data_path:
        flag = "--eval_data_path"
        source = open_eval(config.finetune.eval_data_path, flag, options)
    else:
        source = open_source(config.data.data_path, "val", options=options)
    require_labels(source, flag)
    return source
