"""`python -m experiments.few_labels`: what pre-training on the digits is worth when 100 of them have labels.

Each framework pre-trains once on the 1,442 training images without labels. Then every seed draws
100 labelled images, a head, an order and augmentations, and trains a classifier twice for the same
number of updates: from scratch and from the pre-trained encoder, each with flags that suit it.
Linear probes and k-NN of the frozen encoder, and k-NN of the pixels, use the same labels. All are
evaluated on the 355 held-out images after the last update. Every run is one of `python -m train`,
in this process, so that XLA compiles once for all seeds.

--search tries learning rates instead: on other seeds, evaluated on the training images whose
labels were not drawn, so that the held-out images choose nothing.
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backends import NAMES
from experiments.runs import Run, gain, spread
from spec.console import markdown
from train.config import Config
from train.data.digits import Digits
from train.data.subset import labelled
from train.tasks.features import Features
from train.tasks.probe import votes

STARTS = {"from scratch": "--blr 8e-3", "pre-trained": "--blr 2e-3 --head_init_scale 0.01"}
"""Start -> the best flags that --search found; a large random head would undo the pre-training."""

MODEL = "--patch_size 16 --depths 1 1 2 --dims 32 64 128"
"""Stages at strides 4, 8, 16. The digits are 8 x 8 shown at 32 px, so a site is 1, 4, then 16 true pixels."""

PRETRAIN = (
    "--save_ckpt_num 1 --save_ckpt_freq 20 --picture_freq 0 --parity_check False"
    " --epochs 80 --mask_ratio 0.5 --crop_scale 0.8 1.0 --decoder_embed_dim 48 --norm_pix_loss False"
)
"""Changes to the recipe of the digits: more updates, a narrow decoder, pixels as they are (see few-labels.md)."""

FINETUNE = "--batch_size 50 --epochs 100 --warmup_epochs 10 --save_ckpt False --print_freq 100000 --eval_freq 100000"

ENGINE = {"torch": ["--engine", "masked"], "jax": ["--engine", "visible"]}
"""The engines that made the figures of few-labels.md: the faster ones on a CPU at the time."""

TRIED = {
    "from scratch": ("--blr 4e-3", "--blr 8e-3", "--blr 1.6e-2", "--blr 8e-3 --head_init_scale 0.01"),
    "pre-trained": (
        "--blr 4e-3",
        "--blr 2e-3 --head_init_scale 0.01",
        "--blr 1e-3 --head_init_scale 0.01",
        "--blr 8e-3 --head_init_scale 0.01 --layer_decay 0.5",
    ),
}
"""Start -> the flags that --search compares."""

SEARCHED = range(100, 103)
"""Seeds of --search; those of the table start at 0."""

Results = dict[str, list[float]]
"""Row of the table -> top-1 of each seed."""


def main() -> None:
    """Run what is missing and print the table, or search."""
    args = _arguments()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(args.output_dir.absolute() / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    runs = [Runs(backend, args) for backend in args.backend]
    if args.search:
        runs[0].search()
    else:
        print(table({each.backend: each.results() for each in runs}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds; the pre-training is shared")
    parser.add_argument("--labels", type=int, default=100, help="labelled images")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/few-labels"))
    parser.add_argument("--pretrain_flags", default="", help="more flags for the pre-training, as one word")
    parser.add_argument("--flags", default="", help="more flags for every other run, as one word")
    parser.add_argument("--finetune_flags", default="", help="more flags for every fine-tuning run, as one word")
    parser.add_argument("--search", action="store_true", help="compare the flags in TRIED, in the first backend")
    return parser.parse_args()


class Runs:
    """The runs of one framework. A finished run is not repeated."""

    def __init__(self, backend: str, args: argparse.Namespace) -> None:
        self.backend, self.args, self.root = backend, args, args.output_dir / backend

    def results(self) -> Results:
        """The rows of the table."""
        found: Results = {}
        seeds = range(self.args.seeds)
        for start, flags in STARTS.items():
            probes = [self.probe(start, seed) for seed in seeds]
            found[f"fine-tuned, {start}"] = [self.finetune(start, seed, flags) for seed in seeds]
            encoder = start.replace("from scratch", "untrained")
            found[f"linear probe, {encoder}"] = [probe["linear"]["acc1"] for probe in probes]
            found[f"10-NN, {encoder}"] = [probe["knn"][0]["acc1"] for probe in probes]
        found["10-NN, pixels"] = [neighbours_of_pixels(self.args.labels, seed) for seed in seeds]
        return found

    def search(self) -> None:
        """Print the top-1 for every set of flags, per start."""
        for start, tried in TRIED.items():
            for flags in tried:
                scores = [self.finetune(start, seed, flags, eval_data=self.others(seed)) for seed in SEARCHED]
                print(f"{start}, {flags}: {spread(scores)}", flush=True)

    def finetune(self, start: str, seed: int, flags: str, eval_data: Path | None = None) -> float:
        """The top-1 of a classifier after its last update."""
        folder = self.root / f"{start} {seed} {flags}".replace(" ", "_")
        evaluation = [] if eval_data is None else ["--eval_data_path", str(eval_data)]
        words = ["--task", "finetune", *FINETUNE.split(), *self.labels(seed), *self.encoder(start), *evaluation]
        words += [*ENGINE[self.backend], *self.args.finetune_flags.split(), *flags.split()]
        return self.run(folder, "metrics.jsonl", words).acc1

    def probe(self, start: str, seed: int) -> dict[str, Any]:
        """The content of probe.json."""
        words = ["--task", "probe", "--knn_k", "10", *self.labels(seed), *self.encoder(start)]
        return self.run(self.root / f"{start}_{seed}_probe".replace(" ", "_"), "probe.json", words).read()

    def encoder(self, start: str) -> list[str]:
        """The flags of a start; runs the pre-training if it is missing."""
        if start == "from scratch":
            return []
        folder = self.root / "pretrained"
        self.run(folder, "checkpoints", [*PRETRAIN.split(), *ENGINE[self.backend], *self.args.pretrain_flags.split()])
        return ["--finetune", str(folder)]

    def labels(self, seed: int) -> list[str]:
        return ["--seed", str(seed), "--train_labels", str(self.args.labels), *self.args.flags.split()]

    def others(self, seed: int) -> Path:
        """An npz file with the training images whose labels a seed does not draw."""
        file = self.root / f"others-{self.args.labels}-{seed}.npz"
        if not file.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            digits = Digits("train")
            drawn = labelled(digits, self.args.labels, seed).chosen
            left = np.setdiff1d(np.arange(len(digits)), drawn)
            np.savez(file, images=digits.images[left], labels=np.asarray(digits.labels)[left])
        return file

    def run(self, folder: Path, result: str, words: list[str]) -> Run:
        """A run that has ended."""
        words = ["--backend", self.backend, "--output_dir", str(folder), *MODEL.split(), *words]
        return Run(folder, tuple(words), result).once()


def neighbours_of_pixels(labels: int, seed: int) -> float:
    """The top-1 of k-NN as in a probe, with pixels as features: the baseline of an encoder."""
    train, held_out = (Digits(split) for split in ("train", "val"))
    chosen = labelled(train, labels, seed).chosen
    known = Features(train.images[chosen].reshape(labels, -1) / 255, np.asarray(train.labels)[chosen])
    queries = Features(held_out.images.reshape(len(held_out), -1) / 255, np.asarray(held_out.labels))
    _, counted = next(votes(known, queries, (10,), Config().probe.knn_temperature, len(train.classes)))
    return float(100 * (counted.argmax(1) == queries.labels).mean())


def table(results: Mapping[str, Results]) -> str:
    """Markdown: one row per way to classify, one column per framework; then the gain of pre-training per seed."""
    rows = [["top-1 on the held-out digits, %", *results]]
    rows += [[row, *(spread(each[row]) for each in results.values())] for row in next(iter(results.values()))]
    gains = [gain(each["fine-tuned, pre-trained"], each["fine-tuned, from scratch"]) for each in results.values()]
    return markdown([*rows, ["pre-trained minus from scratch, per seed", *gains]])


if __name__ == "__main__":
    main()
