"""`--task eval`: the accuracy or the masked loss of a checkpoint of any format and framework."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

import backends
import spec
from backends.protocol import Arrays, Backend, Cluster, Optimizer, State, Trainer
from train.config import Config
from train.data.classes import describe, match_checkpoint, names_of, require_labels
from train.data.names import printable
from train.data.reading import check_data, read_options
from train.data.sources import Source, open_eval
from train.errors import TrainError
from train.logs.run_log import format_scores
from train.report import confusion
from train.tasks import weights
from train.tasks.accuracy import eval_batches, evaluate
from train.tasks.masked import masked_loss
from train.tasks.output import make_output_dir, write_json
from train.tasks.task import Evaluation

OF_AUTOENCODERS = (
    *("mask_ratio", "mask_rounding", "mask_policy", "mask_key", "mask_column"),
    *("norm_pix_loss", "grn_scope", "seed"),
)
OF_CLASSIFIERS = ("nb_classes", "model_ema_eval")
"""Flags that only one kind of model uses."""

CONFUSIONS = 5  # number of confusions that are printed


class Subject(NamedTuple):
    """What is evaluated: a model, its parameters, their EMA if it counts, the images, how, and a note to print."""

    model: spec.Classifier | spec.FCMAE
    arrays: Arrays
    ema: Arrays
    source: Source
    evaluate: Callable[[Trainer, Cluster], Evaluation]
    note: str | None = None
    classes: Sequence[str] = ()


def run(config: Config, load: Callable[[str], Backend] = backends.load) -> None:
    """Print the accuracy of the classifier in a checkpoint, or the masked loss of the autoencoder.

    The architecture is the checkpoint's.
    """
    path = weights.path_of(config)
    subject = (_autoencoder if isinstance(weights.load(path).model, spec.FCMAE) else _classifier)(config, path)
    values = check_data(config, subject.source.reading)
    backend = load(config.run.backend)
    backend.use_compilation_cache(config.run.compilation_cache)
    cluster = backend.init_cluster(config.run.device)
    if cluster.rank == 0:
        print(f"{describe(subject.source)}; {spec.count(subject.model):,} parameters from {path}")
        print(values)
        if subject.note:
            print(f"note: {subject.note}")
    trainer = untrained(config, backend, cluster, subject.model, subject.arrays, subject.ema)
    found = subject.evaluate(trainer, cluster)
    for line in found.broken:
        print(f"skipped: {line}")
    if cluster.rank == 0:
        print(f"{format_scores(found.scores)}{str(found.coverage) or f', over {found.coverage.images:,} images'}")
        for suffix, matrix in found.confusions.items():
            _show_confusion(config, suffix, subject.classes, matrix)
        if config.run.output_dir:
            scores = {**found.scores, "eval_skipped": found.coverage.skipped}
            write_json(config, "eval.json", {"checkpoint": path, **scores, "config": config.as_dict()})
    cluster.shutdown()


def _classifier(config: Config, path: str) -> Subject:
    """A classifier, to be evaluated on images with labels; TrainError or SpecError if the flags do not fit it."""
    _refuse(config, OF_AUTOENCODERS, f"an autoencoder, and {path} has none")
    with_ema = config.finetune.model_ema_eval
    model, arrays, ema, meta = weights.classifier(path, with_ema)
    if with_ema and not ema:
        raise TrainError(f"--model_ema_eval True: {path} holds no EMA")
    asked, found = config.finetune.nb_classes, model.num_classes
    if asked not in (None, found):
        raise TrainError(f"--nb_classes {asked}: the head in {path} has {found:,} classes; leave it out")
    weights.check_flags(config, path, model)
    source, flag = _open(config)
    require_labels(source, flag)
    with weights.given_by(f"{path}:"):
        matched = match_checkpoint(meta, model.num_classes, source.classes)
    batches = eval_batches(config, source, matched.index)
    score = partial(evaluate, batches=batches, workers=config.data.num_workers, with_ema=with_ema)
    named = dict(zip(matched.index, source.classes, strict=True))  # the data's names, where the model has none
    names = names_of(meta, found) or [named.get(number, str(number)) for number in range(found)]
    return Subject(model, arrays, ema, source, score, matched.note, names)


def _autoencoder(config: Config, path: str) -> Subject:
    """An autoencoder, to be evaluated on any images; TrainError or SpecError if the flags do not fit it."""
    _refuse(config, OF_CLASSIFIERS, f"a classifier, and {path} has an autoencoder")
    model, arrays = weights.autoencoder(config, path)
    source, _ = _open(config)
    batches = eval_batches(config, source, (0,) * len(source.classes))
    score = partial(masked_loss, config=config, model=model, batches=batches)
    note = "GRN sums over a batch (--grn_scope batch), so the loss depends on --batch_size"
    return Subject(model, arrays, {}, source, score, note if model.encoder.grn_scope == "batch" else None)


def _show_confusion(config: Config, suffix: str, classes: Sequence[str], matrix: np.ndarray) -> None:
    """Print the most frequent confusions; with --output_dir, write the matrix."""
    for line in confusion.most_frequent(classes, matrix, CONFUSIONS):
        print(printable(f"{suffix.removeprefix('_').upper()} {line}".strip()))
    if config.run.output_dir:
        file = make_output_dir(config) / f"confusion{suffix}.csv"
        confusion.write(file, classes, matrix)
        print(f"written: {file}")


def _refuse(config: Config, names: Sequence[str], why: str) -> None:
    """TrainError for a flag that was given and is for another kind of model."""
    for name in names:
        if name in config.given:
            raise TrainError(f"--{name}: is for {why}; leave it out")


def _open(config: Config) -> tuple[Source, str]:
    """The images to evaluate on, and the flag that names them."""
    own = config.finetune.eval_data_path
    path, flag = (own, "--eval_data_path") if own else (config.data.data_path, "--data_path")
    return open_eval(path, flag, read_options(config.data)), flag


def untrained(
    config: Config, backend: Backend, cluster: Cluster, model: spec.Model, arrays: Arrays, ema: Arrays
) -> Trainer:
    """A trainer with the given parameters and, with --model_ema_eval, their EMA, before any update."""
    optimizer = Optimizer(ema_decay=1.0 if config.finetune.model_ema_eval else None)
    trainer = backend.Trainer(model, optimizer, config.trainer_options(), cluster=cluster)
    trainer.restore(State.initial(arrays, ema))
    return trainer
