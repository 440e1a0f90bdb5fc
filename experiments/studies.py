"""What pre-training is worth with few labels, on a data set of one's own: the runs of a study and their table.

A study pre-trains once per framework on all training images, without labels. Then every seed draws
labelled images, a head, an order and augmentations, and trains a classifier on them four times:
from the pre-trained encoder; from scratch with the same flags; from scratch with the flags that
suit it best; and timm's model from scratch, with those flags too. k-NN and a linear probe evaluate
the frozen encoder, the untrained one, and the pixels. All are evaluated once, after the last
update, on images that chose nothing: the flags of each start and number of labels are the best of
those in `tried` on other seeds, by the accuracy on training images whose labels were not drawn.

Every run is one `python -m train` in a process of its own. A finished run is not repeated, a killed
pre-training resumes.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from convert.files import atomic
from experiments.runs import Run
from train.data.sources import Source, open_source
from train.data.subset import Subset, labelled

SEARCHED = (100, 101)
"""Seeds that choose flags; none of them is in the table."""

HELD_OUT = 5000
"""Training images, with labels that a seed did not draw, that choose flags."""

PRETRAINED, SCRATCH, SAME, TIMM = "pre-trained", "from scratch", "from scratch, same flags", "timm, from scratch"
PIXELS = "pixels"
CHOSEN_FOR = {PRETRAINED: PRETRAINED, SCRATCH: SCRATCH, SAME: PRETRAINED, TIMM: SCRATCH}
"""Start -> the start whose flags it takes."""

LAST_ONLY = "--save_ckpt False --print_freq 1000000 --eval_freq 1000000 --crop_pct 1.0"
"""Flags of runs of which only the last evaluation counts."""


@dataclass(frozen=True)
class Study:
    """A data set and its recipe, in flags of `python -m train`.

    unlabelled, labelled, evaluation: paths of the images to pre-train on, to draw labelled ones from, and to evaluate
    on. labels: number of labelled images -> the schedule of its fine-tuning. tried: start -> the flags to choose from.
    repeated: numbers of labels for which JAX repeats the fine-tuning.
    """

    name: str
    unlabelled: Path
    labelled: Path
    evaluation: Path
    model: str
    pretrain: str
    finetune: str
    labels: Mapping[int, str]
    tried: Mapping[str, Sequence[str]]
    repeated: Sequence[int] = ()


class Runs:
    """The runs of a study in one framework, under a folder."""

    def __init__(self, study: Study, backend: str, root: Path) -> None:
        self.study, self.backend, self.root = study, backend, root / backend
        self.pretrained = self.root / "pretrained"

    def pretraining(self) -> Run:
        return self._run("pretrained", self.study.unlabelled, self.study.pretrain.split())

    def pictures(self) -> Run:
        """Reconstructions of eight evaluation images."""
        words = ["--task", "reconstruct", "--finetune", str(self.pretrained)]
        found = self._run("reconstructions", self.study.evaluation, words, needs=True)
        return replace(found, result="reconstruction-00.png")

    def losses(self) -> list[tuple[int, float]]:
        """Update and loss of each line of the pre-training's log."""
        return [(line["step"], line["loss"]) for line in self.pretraining().lines() if "loss" in line]

    def finetuning(self, start: str, count: int, seed: int, flags: str, evaluation: Path | None = None) -> Run:
        """A classifier. evaluation: other images than the study's, to choose flags by."""
        start = SCRATCH if start == SAME else start
        name = f"{start} {count} {seed} {flags}" + (" chooses" if evaluation else "")
        words = f"--task finetune {LAST_ONLY} {self.study.finetune} {self.study.labels[count]} {flags}"
        found = self._labelled(name, count, seed, words, evaluation or self.study.evaluation, start)
        return replace(found, module="experiments.timm_scratch") if start == TIMM else found

    def probe(self, encoder: str, count: int, seed: int) -> Run:
        words = "--task probe --knn_k 10 --crop_pct 1.0"
        found = self._labelled(f"probe {encoder} {count} {seed}", count, seed, words, self.study.evaluation, encoder)
        module = "experiments.pixel_probe" if encoder == PIXELS else found.module
        return replace(found, result="probe.json", module=module)

    def _labelled(self, name: str, count: int, seed: int, words: str, evaluation: Path, start: str) -> Run:
        data = ["--eval_data_path", str(evaluation), "--train_labels", str(count), "--seed", str(seed)]
        encoder = ["--finetune", str(self.pretrained)] if start == PRETRAINED else []
        return self._run(name, self.study.labelled, [*data, *encoder, *words.split()], bool(encoder))

    def _run(self, name: str, data: Path, words: Sequence[str], needs: bool = False) -> Run:
        folder = self.root / name.replace(",", "").replace(" --", " ").replace(" ", "_")
        where = ["--backend", self.backend, "--data_path", str(data), "--output_dir", str(folder)]
        return Run(folder, (*where, *self.study.model.split(), *words), needs=self.pretrained if needs else None)

    def search(self, start: str, count: int) -> dict[str, list[Run]]:
        """Flags -> a run for each seed that chooses; nothing if there is no choice."""
        if len(self.study.tried[start]) == 1:
            return {}
        return {
            flags: [self.finetuning(start, count, seed, flags, self.held_out(count, seed)) for seed in SEARCHED]
            for flags in self.study.tried[start]
        }

    def held_out(self, count: int, seed: int) -> Path:
        """An npz file of training images whose labels a seed does not draw, written if it is missing."""
        file = self.root / f"held-out-{count}-{seed}.npz"
        if not file.exists():
            drawn = labelled(self.source, count, seed)
            assert isinstance(drawn, Subset)
            left = np.setdiff1d(np.arange(len(self.source)), drawn.chosen)
            kept = np.sort(np.random.default_rng(seed).permutation(left)[:HELD_OUT])
            images = np.stack([_pixels(self.source[int(index)][0]) for index in kept])
            self.root.mkdir(parents=True, exist_ok=True)
            with atomic(file) as aside:
                np.savez(aside, images=images, labels=np.asarray(self.source.labels)[kept])
        return file

    @cached_property
    def source(self) -> Source:
        """The images of which some get labels."""
        return open_source(str(self.study.labelled))


def _pixels(image: bytes | np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image))) if isinstance(image, bytes) else image
