"""`--task eval`: the accuracy of a checkpoint of any format and framework."""

from collections.abc import Callable, Sequence
from typing import Any

import backends
import spec
from backends.protocol import Arrays, Backend, Cluster, Optimizer, State, Trainer
from spec import checks
from train.config import Config
from train.data.classes import describe, listed
from train.data.sources import Source, open_eval
from train.errors import TrainError
from train.logs.run_log import format_scores
from train.tasks import weights
from train.tasks.accuracy import eval_batches, evaluate


def run(config: Config, load: Callable[[str], Backend] = backends.load) -> None:
    """Print top-1 and top-5 of the classifier in a checkpoint. The architecture is the checkpoint's."""
    path = config.finetune.finetune or config.checkpoints.resume
    if not path:
        raise TrainError("--task eval: give the checkpoint to evaluate with --finetune or --resume")
    model, arrays, ema, meta = weights.classifier(path)
    _check(config, path, model, ema)
    flag = "eval_data_path" if config.finetune.eval_data_path else "data_path"
    source = open_eval(config.finetune.eval_data_path or config.data.data_path, f"--{flag}")
    batches = eval_batches(config, source, _classes(path, model, meta, source))
    backend = load(config.run.backend)
    backend.use_compilation_cache(config.run.compilation_cache)
    cluster = backend.init_cluster(config.run.device)
    if cluster.rank == 0:
        print(f"{describe(source)}; {spec.count(model):,} parameters from {path}")
    trainer = untrained(config, backend, cluster, model, arrays, ema)
    scores, broken = evaluate(trainer, cluster, batches, config.data.num_workers, config.finetune.model_ema_eval)
    for line in broken:
        print(f"skipped: {line}")
    if cluster.rank == 0:
        print(format_scores(scores))
    cluster.shutdown()


def _check(config: Config, path: str, model: spec.Classifier, ema: Arrays) -> None:
    """TrainError or SpecError if the flags do not fit the checkpoint."""
    if config.finetune.model_ema_eval and not ema:
        raise TrainError(f"--model_ema_eval True: {path} holds no EMA")
    check_images(config, path, model.encoder)


def check_images(config: Config, path: str, encoder: spec.Encoder) -> None:
    """TrainError or SpecError unless the encoder in a checkpoint takes images of the given size and channels."""
    checks.image_size(config.data.image_size, encoder.patch_size)
    found = encoder.in_chans
    if found != config.model.in_chans:
        raise TrainError(
            f"--in_chans {config.model.in_chans}: the model in {path} takes {found}; give --in_chans {found}"
        )


def untrained(
    config: Config, backend: Backend, cluster: Cluster, model: spec.Classifier, arrays: Arrays, ema: Arrays
) -> Trainer:
    """A trainer with the given parameters and, with --model_ema_eval, their EMA, before any update."""
    optimizer = Optimizer(ema_decay=1.0 if config.finetune.model_ema_eval else None)
    trainer = backend.Trainer(model, optimizer, config.trainer_options(), cluster=cluster)
    trainer.restore(State.initial(arrays, ema))
    return trainer


def _classes(path: str, model: spec.Classifier, meta: dict[str, Any], source: Source) -> Sequence[str]:
    """The names of the model's classes: from its run, numbers, or the data's if there are as many."""
    own, numbers = meta.get("classes"), [str(number) for number in range(model.num_classes)]
    if isinstance(own, list) and len(own) == model.num_classes:
        return own
    if set(source.classes) <= set(numbers):
        return numbers
    if len(source.classes) != model.num_classes:
        raise TrainError(
            f"--finetune {path}: its head has {model.num_classes:,} classes, the data {len(source.classes):,}"
            f" ({listed(source.classes)}), so they cannot be matched"
        )
    return source.classes
