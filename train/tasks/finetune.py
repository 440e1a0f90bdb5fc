"""Fine-tuning: a classifier, from a pre-trained encoder or from scratch, as published."""

from typing import Any

import spec
from backends.protocol import Arrays, Cluster, Optimizer, Trainer
from spec import checks
from train.command.config import Config
from train.data.classes import describe, listed, require_several
from train.data.mixing import Mix
from train.data.pixels import Erase
from train.data.randaugment import RandAugment
from train.data.sources import Source, open_eval, open_source
from train.data.subset import labelled
from train.data.supervised import CropAndAugment, EvalBatches, SupervisedFeed
from train.data.transforms import CropAndFlip
from train.errors import TrainError
from train.tasks.judge import judge, views
from train.tasks.task import Review
from train.tasks.weights import first_arrays

BETAS = (0.9, 0.999)


class Finetuning:
    """What the loop asks of a task, for a classifier; SpecError and TrainError for what cannot be."""

    name = "finetune"

    def __init__(self, config: Config) -> None:
        self.config = config
        self.source = labelled(open_source(config.data_path), config.train_labels, config.seed)
        self.model = model_of(config, classes_of(config, self.source))
        self.policy = _policy(config)
        self.views = _views(config, self.source)
        self.optimizer = Optimizer(
            weight_decay=config.weight_decay,
            betas=BETAS,
            clip_grad=config.clip_grad,
            layer_decay=config.layer_decay,
            layer_decay_type=config.layer_decay_type,
            ema_decay=config.model_ema_decay if config.model_ema else None,
        )

    @property
    def review_freq(self) -> int:
        """Epochs between two evaluations; 0 for none."""
        return self.config.eval_freq if self.views else 0

    @property
    def meta(self) -> dict[str, Any]:
        """The classes, in the order of the head's outputs."""
        return {"classes": list(self.source.classes)}

    def summary(self) -> list[str]:
        """What is trained on, what it is judged by, and where it starts."""
        lines = [f"training: {describe(self.source)}"]
        lines += [f"evaluation: {describe(self.views.source)}"] if self.views else []
        start = f"from {self.config.finetune}" if self.config.finetune else "from scratch"
        return [*lines, f"{spec.count(self.model):,} parameters, {start}"]

    def feed(self, rows: int, epoch_size: int) -> SupervisedFeed:
        """Micro-batches of augmented, erased and mixed images with their soft targets and drop-path decisions."""
        config, seed = self.config, self.config.seed
        crop = CropAndFlip(config.image_size, config.crop_range, config.hflip, config.decode == "scaled")
        beta = (config.mixup, config.cutmix)
        return SupervisedFeed(
            source=self.source,
            seed=seed,
            channels=config.in_chans,
            batch_size=rows,
            epoch_size=epoch_size,
            augment=CropAndAugment(crop, self.policy),
            classes=self.model.num_classes,
            smoothing=config.smoothing,
            rates=self.model.encoder.drop_path_rates(),
            mean=config.mean,
            std=config.std,
            erase=Erase(seed, config.reprob, config.remode, config.recount) if config.reprob else None,
            mix=Mix(seed, config.mix_group, *beta, config.mixup_prob, config.mixup_switch_prob) if any(beta) else None,
        )

    def first_arrays(self) -> Arrays:
        """The parameters before the first update."""
        return first_arrays(self.model, self.config.seed, self.config.head_init_scale, self.config.finetune)

    def review(self, trainer: Trainer, cluster: Cluster) -> Review:
        """Accuracies on the images to judge by."""
        assert self.views is not None, "review_freq is 0 without an evaluation"
        averaged = (False, True) if self.config.model_ema_eval else (False,)
        return Review(*judge(trainer, cluster, self.views, self.config.num_workers, averaged), picture=None)


def classes_of(config: Config, source: Source) -> int:
    """The number of classes; TrainError when --nb_classes says another than the data has."""
    found = len(source.classes)
    if config.nb_classes not in (None, found):
        raise TrainError(
            f"--nb_classes {config.nb_classes}: the data has {found:,} classes ({listed(source.classes)});"
            f" give --nb_classes {found} or leave it out"
        )
    return require_several(source, f"--data_path {config.data_path}")


def model_of(config: Config, classes: int) -> spec.Classifier:
    """The classifier that the flags name; SpecError when it cannot be."""
    sizes = {"depths": config.depths, "dims": config.dims}
    model = spec.classifier(
        config.model,
        num_classes=classes,
        drop_path=config.drop_path,
        in_chans=config.in_chans,
        patch_size=config.patch_size,
        grn_scope=config.grn_scope,
        **{name: value for name, value in sizes.items() if value is not None},
    )
    checks.image_size(config.image_size, model.encoder.patch_size)
    return model


def _policy(config: Config) -> RandAugment | None:
    if config.aa == "none":
        return None
    if config.in_chans not in (1, 3):
        raise TrainError(
            f"--aa {config.aa}: is for grey or RGB images, not for {config.in_chans} channels; give --aa none"
        )
    return RandAugment.parse(config.aa, config.mean)


def _views(config: Config, source: Source) -> EvalBatches | None:
    """The evaluation, unless it is disabled."""
    if config.model_ema_eval and not config.model_ema:
        raise TrainError("--model_ema_eval True: there is no average to evaluate; give --model_ema True")
    if config.disable_eval:
        return None
    return views(config, open_judging(config), source.classes)


def open_judging(config: Config) -> Source:
    """The images to evaluate on; TrainError where there are none."""
    if config.eval_data_path:
        return open_eval(config.eval_data_path, "--eval_data_path")
    return open_source(config.data_path, "val")
