"""`python -m docs.few_labels`: what pre-training on the embedded digits is worth when 100 of them have labels.

In each framework, one pre-training on the 1,442 training images without their labels. Then, for
every seed, 100 labelled images, a head, an order and augmentations are drawn anew, and a classifier
is trained twice for as many updates, from a fresh encoder and from the pre-trained one, each by the
flags that suit it. Beside it stand linear probes and k-NN of the frozen encoder, and k-NN
of the pixels, with the same labels. All is judged on the 355 held-out images after the last update.
Every run is one of `python -m train`, in this process, so that XLA compiles once for all seeds.

--search tries learning rates and the like instead: on other seeds, and judged on the training images whose
labels were not drawn, so that the held-out images choose nothing.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from backends import NAMES
from train.__main__ import main as train
from train.config import Config
from train.data.sources import Digits
from train.data.subset import labelled
from train.tasks.features import Features
from train.tasks.probe import votes

STARTS = {"from scratch": "--blr 8e-3", "pre-trained": "--blr 2e-3 --head_init_scale 0.01"}
"""Each start, and what --search found best for it; a large random head would undo what was learnt before."""

MODEL = "--patch_size 16 --depths 1 1 2 --dims 32 64 128"
"""Stages at strides 4, 8, 16: of the digits, 8 x 8 shown at 32 px, a site is one true pixel, then 4, then 16."""

PRETRAIN = (
    "--save_ckpt_num 1 --save_ckpt_freq 20 --picture_freq 0 --parity_check False"
    " --epochs 80 --mask_ratio 0.5 --crop_scale 0.8 1.0 --decoder_embed_dim 48 --norm_pix_loss False"
)
"""Beside the recipe of the digits: more updates, a narrow decoder, pixels as they are (docs/few-labels.md says why)."""

FINETUNE = "--batch_size 50 --epochs 100 --warmup_epochs 10 --save_ckpt False --print_freq 100000 --eval_freq 100000"

ENGINE = {"torch": ["--engine", "masked"], "jax": ["--engine", "visible"]}
"""The faster one for so small a model on a CPU; they compute the same."""

TRIED = {
    "from scratch": ("--blr 4e-3", "--blr 8e-3", "--blr 1.6e-2", "--blr 8e-3 --head_init_scale 0.01"),
    "pre-trained": (
        "--blr 4e-3",
        "--blr 2e-3 --head_init_scale 0.01",
        "--blr 1e-3 --head_init_scale 0.01",
        "--blr 8e-3 --head_init_scale 0.01 --layer_decay 0.5",
    ),
}
"""What --search compares, a start."""

SEARCHED = range(100, 103)
"""Seeds of --search; a table's count from 0."""

Results = dict[str, list[float]]
"""Row of the table -> top-1 of each seed."""


def main() -> None:
    """Train all that is missing and print the table; or search."""
    asked = _asked()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(asked.output_dir.absolute() / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    stories = [Story(backend, asked) for backend in asked.backend]
    if asked.search:
        stories[0].search()
    else:
        print(table({story.backend: story.results() for story in stories}))


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--seeds", type=int, default=5, help="how often everything but the pre-training is drawn anew")
    parser.add_argument("--labels", type=int, default=100, help="labelled images")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/few-labels"))
    parser.add_argument("--pretrain_flags", default="", help="more flags of the pre-training, as one word")
    parser.add_argument("--flags", default="", help="more flags of every run after it, as one word")
    parser.add_argument("--search", action="store_true", help="try what TRIED lists, in the first backend")
    return parser.parse_args()


class Story:
    """The runs of one framework. A run whose result is there is not repeated."""

    def __init__(self, backend: str, asked: argparse.Namespace) -> None:
        self.backend, self.asked, self.root = backend, asked, asked.output_dir / backend

    def results(self) -> Results:
        """The rows of the table."""
        found: Results = {}
        seeds = range(self.asked.seeds)
        for start, flags in STARTS.items():
            probes = [self.probe(start, seed) for seed in seeds]
            found[f"fine-tuned, {start}"] = [self.finetune(start, seed, flags) for seed in seeds]
            encoder = start.replace("from scratch", "untrained")
            found[f"linear probe, {encoder}"] = [probe["linear"]["acc1"] for probe in probes]
            found[f"10-NN, {encoder}"] = [probe["knn"][0]["acc1"] for probe in probes]
        found["10-NN, pixels"] = [neighbours_of_pixels(self.asked.labels, seed) for seed in seeds]
        return found

    def search(self) -> None:
        """Print the top-1 of all that is tried from each start."""
        for start, tried in TRIED.items():
            for flags in tried:
                scores = [self.finetune(start, seed, flags, judge=self.others(seed)) for seed in SEARCHED]
                print(f"{start}, {flags}: {spread(scores)}", flush=True)

    def finetune(self, start: str, seed: int, flags: str, judge: Path | None = None) -> float:
        """The top-1 of a classifier after its last update."""
        folder = self.root / f"{start} {seed} {flags}".replace(" ", "_")
        judged = [] if judge is None else ["--eval_data_path", str(judge)]
        words = ["--task", "finetune", *FINETUNE.split(), *self.labels(seed), *self.encoder(start), *judged]
        lines = self.run(folder, "metrics.jsonl", [*words, *ENGINE[self.backend], *flags.split()]).splitlines()
        return float(json.loads(lines[-1])["acc1"])

    def probe(self, start: str, seed: int) -> dict[str, Any]:
        """The content of probe.json."""
        words = ["--task", "probe", "--knn_k", "10", *self.labels(seed), *self.encoder(start)]
        return dict(json.loads(self.run(self.root / f"{start}_{seed}_probe".replace(" ", "_"), "probe.json", words)))

    def encoder(self, start: str) -> list[str]:
        """The flags of a start; the pre-trained encoder is trained where it is missing."""
        if start == "from scratch":
            return []
        folder = self.root / "pretrained"
        self.run(folder, "checkpoints", [*PRETRAIN.split(), *ENGINE[self.backend], *self.asked.pretrain_flags.split()])
        return ["--finetune", str(folder)]

    def labels(self, seed: int) -> list[str]:
        return ["--seed", str(seed), "--train_labels", str(self.asked.labels), *self.asked.flags.split()]

    def others(self, seed: int) -> Path:
        """An npz file of the training images whose labels a seed does not draw."""
        file = self.root / f"others-{self.asked.labels}-{seed}.npz"
        if not file.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            digits = Digits("train")
            drawn = labelled(digits, self.asked.labels, seed).chosen
            left = np.setdiff1d(np.arange(len(digits)), drawn)
            np.savez(file, images=digits.images[left], labels=np.asarray(digits.labels)[left])
        return file

    def run(self, folder: Path, result: str, words: list[str]) -> str:
        """The text of a result (nothing for a folder) of `python -m train`, which runs where it has not finished."""
        words = ["--backend", self.backend, "--output_dir", str(folder), *MODEL.split(), *words]
        done, file = folder / "finished", folder / result
        if not done.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "log.txt").open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
                status = train(words)
            if status:
                sys.exit(status)
            done.write_text(" ".join(words), encoding="utf-8")
        elif done.read_text(encoding="utf-8") != " ".join(words):
            sys.exit(f"--output_dir {self.root.parent}: holds runs with other flags; give another ({done})")
        return file.read_text(encoding="utf-8") if file.is_file() else ""


def neighbours_of_pixels(labels: int, seed: int) -> float:
    """The top-1 of k-NN as in a probe, with the pixels for features: what an encoder has to beat."""
    train, judged = (Digits(split) for split in ("train", "val"))
    chosen = labelled(train, labels, seed).chosen
    known = Features(train.images[chosen].reshape(labels, -1) / 255, np.asarray(train.labels)[chosen])
    asked = Features(judged.images.reshape(len(judged), -1) / 255, np.asarray(judged.labels))
    _, counted = next(votes(known, asked, (10,), Config().probe.knn_temperature, len(train.classes)))
    return float(100 * (counted.argmax(1) == asked.labels).mean())


def table(results: Mapping[str, Results]) -> str:
    """Markdown: a row a way to classify, a column a framework; then what pre-training changes, seed by seed."""
    rows = [["top-1 on the held-out digits, %", *results], ["---"] * (len(results) + 1)]
    rows += [[row, *(spread(each[row]) for each in results.values())] for row in next(iter(results.values()))]
    rows += [["pre-trained less from scratch, of one seed", *(_gain(each) for each in results.values())]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _gain(results: Results) -> str:
    pairs = zip(results["fine-tuned, pre-trained"], results["fine-tuned, from scratch"], strict=True)
    gains = [after - before for after, before in pairs]
    return f"{spread(gains)}; above 0 in {sum(gain > 0 for gain in gains)} of {len(gains)}"


def spread(values: list[float]) -> str:
    """Mean, standard deviation, smallest and largest, e.g. "92.1 ± 0.5 (91.5 to 92.9)"."""
    deviation = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.1f} ± {deviation:.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
