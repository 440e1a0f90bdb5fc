"""`python -m experiments.timm_scratch FLAGS`: fine-tuning as by `python -m train`, with timm's model in place of ours.

The same images, augmentations, schedule and optimizer; timm's ConvNeXt V2 blocks, with timm's
initial weights, in the same stages; so a classifier from scratch that owes nothing to this project's model.
"""

import json
import sys
from collections.abc import Sequence
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import spec
from backends.cluster import SingleProcess
from benchmarks.outside import timm
from train.config import Config
from train.config.cli import parse
from train.data.pixels import normalise
from train.schedule import Schedule
from train.tasks.accuracy import Score
from train.tasks.finetune import Finetuning


def main(argv: Sequence[str]) -> None:
    """Train, evaluate once, and write the scores to metrics.jsonl."""
    config = parse(argv)
    task = Finetuning(config)
    torch.manual_seed(config.run.seed)
    model = network(task.model)
    found = {"images_per_s": train(model, config, task), **scores(model, config, task)}
    config.run_dir.mkdir(parents=True, exist_ok=True)
    (config.run_dir / "metrics.jsonl").write_text(json.dumps(found) + "\n", encoding="utf-8")


def network(model: spec.Classifier) -> nn.Module:
    """timm's blocks in the stages of a classifier of up to three stages; as many parameters as ours."""
    encoder = model.encoder
    depths, dims = encoder.depths, encoder.dims
    rest = 4 - len(depths)  # timm builds four stages
    found = timm().models.convnext.ConvNeXt(
        in_chans=encoder.in_chans,
        num_classes=model.num_classes,
        depths=(*depths, *[0] * rest),
        dims=(*dims, *dims[-1:] * rest),
        patch_size=encoder.stem_stride,
        use_grn=True,
        ls_init_value=None,
    )
    found.stages = found.stages[: len(depths)]
    found.stages[0].downsample = nn.Identity()  # timm adds one after a stem of stride 2
    ours, theirs = spec.count(model), sum(param.numel() for param in found.parameters())
    assert ours == theirs, f"timm's has {theirs:,} parameters, ours {ours:,}"
    return found.to(memory_format=torch.channels_last)


def train(model: nn.Module, config: Config, task: Finetuning) -> float:
    """All updates of the run; AdamW decays matrices and kernels only, as here. Returns images per second."""
    schedule = Schedule.of(config, len(task.source))
    feed = task.feed(config.optimizer.batch_size, config.effective_batch, schedule.updates_per_epoch)
    decayed = [param for param in model.parameters() if param.ndim > 1]
    rest = [param for param in model.parameters() if param.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
    asked = task.optimizer
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=asked.betas, weight_decay=asked.weight_decay)
    model.train()
    start = monotonic()
    for update in range(schedule.updates):
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr(update)
        batch, _ = feed(update)
        optimizer.zero_grad()
        cross_entropy(model(_nchw(batch["images"], config)), torch.from_numpy(batch["targets"])).backward()
        optimizer.step()
    return schedule.updates * config.effective_batch / (monotonic() - start)


def scores(model: nn.Module, config: Config, task: Finetuning) -> dict[str, float]:
    """The scores on the evaluation images."""
    found, batches = Score(), task.eval_batches
    assert batches is not None, "fine-tuning without evaluation"
    model.eval()
    with torch.inference_mode():
        for batch, _ in map(batches, range(len(batches))):
            found.add(model(_nchw(batch["images"], config)).numpy(), batch["labels"])
    return found.read(SingleProcess())


def _nchw(images: np.ndarray, config: Config) -> Tensor:
    pixels = normalise(images, config.data.mean, config.data.std)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


if __name__ == "__main__":
    main(sys.argv[1:])
