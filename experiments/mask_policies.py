"""`python -m experiments.mask_policies`: what each --mask_policy does to the loss and to fine-tuning, on the digits.

For each policy and seed: pre-training by the digits' recipe with a narrow decoder and plain targets (few-labels.md
says why); the masked loss on the 355 held-out digits, under the masks of every policy; a linear probe and k-NN of
the frozen encoder, and fine-tuning, on 100 labelled digits, evaluated on the held-out ones. "none" starts from
scratch. Every run is one of `python -m train`, in this process. A finished run is not repeated.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

import backends
import convert
import spec
from experiments.few_labels import ENGINE, FINETUNE
from experiments.runs import Run, spread
from spec.console import markdown
from train.config.recipes import DIGITS_IMAGES
from train.data.digits import Digits
from train.data.masks import random_masks
from train.data.pixels import normalise
from train.data.policies import POLICIES

PRETRAIN = (
    "--epochs 15 --decoder_embed_dim 24 --norm_pix_loss False --parity_check False --picture_freq 0"
    " --save_ckpt_freq 1000 --save_ckpt_num 1 --print_freq 22"
)
LABELS = "--train_labels 100"
NONE = "none"

HEAD = ("policy", "loss at the end", *(f"held out, {name}" for name in POLICIES), "10-NN", "linear", "fine-tuned")


def main() -> None:
    """Run what is missing and print the table."""
    args = _arguments()
    print(table([{name: Policy(args, name, seed).cells() for name in (*POLICIES, NONE)} for seed in range(args.seeds)]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=backends.NAMES, default="torch")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, of pre-training and of the labels")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/mask-policies"))
    parser.add_argument("--pretrain_flags", default="", help="more flags for the pre-training, as one word")
    parser.add_argument("--finetune_flags", default="", help="more flags for every fine-tuning run, as one word")
    parser.add_argument("--flags", default="", help="more flags for every run, as one word")
    return parser.parse_args()


class Policy:
    """The runs of one policy and seed."""

    def __init__(self, args: argparse.Namespace, policy: str, seed: int) -> None:
        self.args, self.policy, self.seed = args, policy, seed
        self.folder = args.output_dir / f"{policy}-{seed}"

    def cells(self) -> list[float]:
        """The numbers of a row of the table; NaN for a loss without pre-training."""
        losses = [np.nan] * (1 + len(POLICIES)) if self.policy == NONE else [self.pretrain(), *self.held_out()]
        probe = self.train("probe", "probe.json", f"--knn_k 10 {LABELS}").read()
        tuned = self.train("finetune", "metrics.jsonl", f"{FINETUNE} {LABELS} {self.args.finetune_flags}")
        return [*losses, probe["knn"][0]["acc1"], probe["linear"]["acc1"], tuned.acc1]

    def pretrain(self) -> float:
        """The mean training loss since the last line but one of the log."""
        flags = f"{PRETRAIN} --mask_policy {self.policy} {self.args.pretrain_flags}"
        return float(self.train("pretrain", "metrics.jsonl", flags).read()["loss"])

    def held_out(self) -> Iterator[float]:
        """The masked loss on the held-out digits under the masks of every policy."""
        checkpoint = convert.load(self.folder / "pretrain", weights_only=True)
        model, backend = checkpoint.model, backends.load(self.args.backend)
        assert isinstance(model, spec.FCMAE)
        module = backend.build(model)
        backend.set_arrays(module, {name: np.asarray(checkpoint.arrays[name]) for name in spec.parameters(model)})
        images = Digits("val").images
        pixels = normalise(images, DIGITS_IMAGES["mean"], DIGITS_IMAGES["std"])
        for policy in POLICIES:
            places = np.arange(len(images))
            mask = random_masks(self.seed, places, model.grid, spec.visible_patches(model), policy, images)
            yield float(backend.forward(module, pixels, mask)["loss"])

    def train(self, task: str, result: str, flags: str) -> Run:
        """A run of a task that has ended."""
        folder = self.folder / task
        words = f"--task {task} --backend {self.args.backend} --seed {self.seed} --output_dir {folder} {flags}"
        if task != "pretrain" and self.policy != NONE:
            words += f" --finetune {self.folder / 'pretrain'}"
        words += f" {' '.join(ENGINE[self.args.backend])} {self.args.flags}"
        return Run(folder, tuple(words.split()), result).once()


def table(seeds: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """Markdown: one row per policy; losses to four digits, accuracies as in `spread`."""
    rows = [list(HEAD)]
    for policy in seeds[0]:
        columns = [list(column) for column in zip(*(cells[policy] for cells in seeds), strict=True)]
        losses, scores = columns[:-3], columns[-3:]
        rows.append([policy, *(_mean(column) for column in losses), *(spread(column) for column in scores)])
    return markdown(rows)


def _mean(losses: list[float]) -> str:
    return "-" if np.isnan(losses).any() else f"{np.mean(losses):.4f}"


if __name__ == "__main__":
    main()
