"""`--task eval`: the accuracy of a checkpoint of any format and framework."""

from collections.abc import Callable, Mapping
from typing import Any

import backends
import spec
from backends.protocol import Arrays, Backend, Cluster, Optimizer, State, Trainer
from train.config import Config
from train.data.classes import Match, describe, match_checkpoint, require_labels
from train.data.reading import check_data, read_options
from train.data.sources import Source, open_eval
from train.errors import TrainError
from train.logs.run_log import format_scores
from train.tasks import weights
from train.tasks.accuracy import eval_batches, evaluate
from train.tasks.output import write_json


def run(config: Config, load: Callable[[str], Backend] = backends.load) -> None:
    """Print top-1 and top-5 of the classifier in a checkpoint. The architecture is the checkpoint's."""
    path = weights.path_of(config)
    model, arrays, ema, meta = weights.classifier(path, config.finetune.model_ema_eval)
    _check(config, path, model, ema)
    source = _open(config)
    values = check_data(config, source.reading)
    matched = _match(path, model, meta, source)
    batches = eval_batches(config, source, matched.index)
    backend = load(config.run.backend)
    backend.use_compilation_cache(config.run.compilation_cache)
    cluster = backend.init_cluster(config.run.device)
    if cluster.rank == 0:
        print(f"{describe(source)}; {spec.count(model):,} parameters from {path}\n{values}")
        if matched.note:
            print(f"note: {matched.note}")
    trainer = untrained(config, backend, cluster, model, arrays, ema)
    found = evaluate(trainer, cluster, batches, config.data.num_workers, config.finetune.model_ema_eval)
    for line in found.broken:
        print(f"skipped: {line}")
    if cluster.rank == 0:
        print(f"{format_scores(found.scores)}{found.coverage}")
        if config.run.output_dir:
            scores = {**found.scores, "eval_skipped": found.coverage.skipped}
            write_json(config, "eval.json", {"checkpoint": path, **scores, "config": config.as_dict()})
    cluster.shutdown()


def _open(config: Config) -> Source:
    """The images to evaluate on; TrainError if they have no labels."""
    path, flag = config.data.data_path, "--data_path"
    if config.finetune.eval_data_path:
        path, flag = config.finetune.eval_data_path, "--eval_data_path"
    source = open_eval(path, flag, read_options(config.data))
    require_labels(source, flag)
    return source


def _check(config: Config, path: str, model: spec.Classifier, ema: Arrays) -> None:
    """TrainError or SpecError if the flags do not fit the checkpoint."""
    if config.finetune.model_ema_eval and not ema:
        raise TrainError(f"--model_ema_eval True: {path} holds no EMA")
    asked, found = config.finetune.nb_classes, model.num_classes
    if asked not in (None, found):
        raise TrainError(f"--nb_classes {asked}: the head in {path} has {found:,} classes; leave it out")
    weights.check_flags(config, path, model)


def untrained(
    config: Config, backend: Backend, cluster: Cluster, model: spec.Classifier, arrays: Arrays, ema: Arrays
) -> Trainer:
    """A trainer with the given parameters and, with --model_ema_eval, their EMA, before any update."""
    optimizer = Optimizer(ema_decay=1.0 if config.finetune.model_ema_eval else None)
    trainer = backend.Trainer(model, optimizer, config.trainer_options(), cluster=cluster)
    trainer.restore(State.initial(arrays, ema))
    return trainer


def _match(path: str, model: spec.Classifier, meta: Mapping[str, Any], source: Source) -> Match:
    """The model's class for each class of the images; TrainError if that is unknown."""
    try:
        return match_checkpoint(meta, model.num_classes, source.classes)
    except TrainError as error:
        raise TrainError(f"{path}: {error}") from None
