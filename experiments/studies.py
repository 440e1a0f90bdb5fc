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

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from statistics import mean

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

import backends
from experiments.runs import Queue, Run, gain, markdown, spread
from train.config.cli import parse
from train.data.sources import open_source
from train.data.subset import labelled
from train.schedule import Schedule

SEARCHED = (100, 101)
"""Seeds that choose flags; none of them is in the table."""

HELD_OUT = 5000
"""Training images, with labels that a seed did not draw, that choose flags."""

PRETRAINED, SCRATCH, SAME, TIMM = "pre-trained", "from scratch", "from scratch, same flags", "timm, from scratch"
PIXELS = "pixels"
CHOSEN_FOR = {PRETRAINED: PRETRAINED, SCRATCH: SCRATCH, SAME: PRETRAINED, TIMM: SCRATCH}
"""Start -> the start whose flags it takes."""

GAINS = (
    (f"fine-tuned, {PRETRAINED}", f"fine-tuned, {SCRATCH}"),
    (f"fine-tuned, {PRETRAINED}", f"fine-tuned, {SAME}"),
    (f"linear probe, {PRETRAINED}", f"linear probe, {PIXELS}"),
)
"""Pairs of rows whose difference per seed is a row."""

CURVES = {
    f"fine-tuned, {PRETRAINED}": "#1b6ca8",
    f"fine-tuned, {SCRATCH}": "#888888",
    f"fine-tuned, {TIMM}": "#c0a060",
    f"linear probe, {PRETRAINED}": "#7fb3d5",
    f"linear probe, {PIXELS}": "#d98880",
}
"""Row that is drawn -> its colour."""

LAST_ONLY = "--save_ckpt False --print_freq 1000000 --eval_freq 1000000 --crop_pct 1.0"
"""Flags of runs of which only the last evaluation counts."""

QUICK = 12
"""Updates of a run that measures the speed."""

PROBE = 8
"""Seconds that a probe, or pictures, are expected to take."""

Results = dict[str, dict[int, list[float]]]
"""Row -> number of labels -> top-1 of each seed."""


@dataclass(frozen=True)
class Study:
    """A data set and its recipe, in flags of `python -m train`.

    unlabelled, labelled, evaluation: paths of the images to pre-train on, to draw labelled ones from, and to evaluate
    on. labels: number of labelled images -> the schedule of its fine-tuning. tried: start -> the flags to choose from.
    repeated: numbers of labels for which JAX repeats the fine-tuning. engine: framework -> the faster engine on a CPU.
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
    engine: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(backends.NAMES, "visible"))


class Runs:
    """The runs of a study in one framework, under a folder."""

    def __init__(self, study: Study, backend: str, root: Path) -> None:
        self.study, self.backend, self.root = study, backend, root / backend
        self.pretrained = self.root / "pretrained"

    def pretraining(self) -> Run:
        words = f"{self.study.pretrain} --engine {self.study.engine[self.backend]}"
        return self._run("pretrained", self.study.unlabelled, words.split())

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
            source = open_source(str(self.study.labelled))
            left = np.setdiff1d(np.arange(len(source)), labelled(source, count, seed).chosen)
            kept = np.sort(np.random.default_rng(seed).permutation(left)[:HELD_OUT])
            self.root.mkdir(parents=True, exist_ok=True)
            images = np.stack([_pixels(source[int(index)][0]) for index in kept])
            np.savez(file, images=images, labels=np.asarray(source.labels)[kept])
        return file


def _pixels(image: bytes | np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image))) if isinstance(image, bytes) else image


class Experiment:
    """A study in both frameworks: the first for all of it, the other for the numbers of labels in `repeated`."""

    def __init__(self, study: Study, args: argparse.Namespace) -> None:
        self.study, self.seeds, self.folder = study, range(args.seeds), args.output_dir
        self.queue = Queue(args.processes)
        self.runs = {backend: Runs(study, backend, args.output_dir) for backend in args.backend}
        self.first = next(iter(self.runs.values()))
        starts = [(start, count) for start in study.tried for count in study.labels]
        self.flags = {(start, count): study.tried[start][0] for start, count in starts}
        """Start, number of labels -> the flags of the table; before the search, the first that it compares."""
        self.searches = {(start, count): self.first.search(start, count) for start, count in starts}

    def run(self) -> None:
        """Run what is missing, and print the tables."""
        print(self.estimate(), flush=True)
        self.queue.run(self.first_runs())
        self.flags |= {key: best(found) for key, found in self.searches.items() if found}
        print(searched(self.searches))
        self.queue.run([run for runs in self.runs.values() for run in self.table_runs(runs).values()])
        for backend, runs in self.runs.items():
            print(table(f"top-1, %, {backend}", self.results(runs)))
        losses = {backend: runs.losses() for backend, runs in self.runs.items()}
        draw(losses, self.results(self.first), self.folder / "curves.png")
        print(f"pictures: {self.folder / 'curves.png'}, {self.first.pictures().folder}")

    def first_runs(self) -> list[Run]:
        """Pre-training, and the runs that choose flags."""
        found = [each for runs in self.runs.values() for each in (runs.pretraining(), runs.pictures())]
        return found + [run for search in self.searches.values() for runs in search.values() for run in runs]

    def table_runs(self, runs: Runs) -> dict[tuple[str, int, int], Run]:
        """Row, number of labels, seed -> run."""
        found, first = {}, runs is self.first
        counts, starts = (self.study.labels, CHOSEN_FOR) if first else (self.study.repeated, (PRETRAINED, SCRATCH))
        for count, seed in ((count, seed) for count in counts for seed in self.seeds):
            for start in starts:
                flags = self.flags[CHOSEN_FOR[start], count]
                found[f"fine-tuned, {start}", count, seed] = runs.finetuning(start, count, seed, flags)
            for encoder in ("untrained", PRETRAINED, PIXELS) if first else ():
                found[encoder, count, seed] = runs.probe(encoder, count, seed)
        return found

    def results(self, runs: Runs) -> Results:
        """The rows of a table, from runs that have finished."""
        found: Results = {}
        for (name, count, _), run in self.table_runs(runs).items():
            for row, score in _scores(name, run).items():
                found.setdefault(row, {}).setdefault(count, []).append(score)
        return found

    def estimate(self) -> str:
        """How long what is missing will take here, from the speed of a few updates of each kind."""
        later = [run for runs in self.runs.values() for run in self.table_runs(runs).values()]
        missing = [run for run in (*self.first_runs(), *later) if not run.finished]
        training = [run for run in missing if run.result == "metrics.jsonl"]
        kinds = {_kind(run): run for run in training if not run.needs}
        speeds = {kind: self.speed(run) for kind, run in kinds.items()}
        seconds = (len(missing) - len(training)) * PROBE + sum(
            self.images(run) / speeds[_kind(run)] for run in training
        )
        about = timedelta(seconds=round(seconds / self.queue.processes))
        return f"{self.study.name}: about {about} in {self.queue.processes} processes; the same command continues"

    def images(self, run: Run) -> int:
        """The number of images that a run trains on, repetitions counted."""
        config = parse(run.words)
        count = config.finetune.train_labels or len(open_source(str(self.study.unlabelled)))
        return Schedule.of(config, count).updates * config.effective_batch

    def speed(self, run: Run) -> float:
        """Images per second of a run's kind, in one process."""
        folder = run.folder.parent / "speed"
        quick = f"--output_dir {folder} --max_steps {QUICK} --print_freq {QUICK // 2} --auto_resume False"
        measured = replace(run, folder=folder, words=(*run.words, *quick.split()))
        Queue(self.queue.processes).run([measured])
        (folder / "finished").unlink()
        return float([line["images_per_s"] for line in measured.lines() if "images_per_s" in line][-1])


def _kind(run: Run) -> tuple[str, ...]:
    """Runs of one kind are equally fast."""
    return run.words[1], run.module, "finetune" if "finetune" in run.words else "pretrain"


def _scores(name: str, run: Run) -> dict[str, float]:
    """Row -> top-1."""
    if run.result == "metrics.jsonl":
        return {name: run.acc1}
    found = run.read()
    return {f"10-NN, {name}": found["knn"][0]["acc1"], f"linear probe, {name}": found["linear"]["acc1"]}


def best(search: Mapping[str, Sequence[Run]]) -> str:
    """The flags of the highest mean top-1."""
    return max(search, key=lambda flags: mean(run.acc1 for run in search[flags]))


def searched(searches: Mapping[tuple[str, int], Mapping[str, Sequence[Run]]]) -> str:
    """Markdown: the scores that chose the flags."""
    rows = [("start", "labels", "flags", "top-1 on other training images, %")]
    for (start, count), search in searches.items():
        rows += [
            (start, f"{count:,}", f"`{flags}`", spread([run.acc1 for run in runs])) for flags, runs in search.items()
        ]
    return markdown(rows)


def table(head: str, results: Results) -> str:
    """Markdown: one row per way to classify and per gain, one column per number of labels."""
    counts = list(next(iter(results.values())))
    rows = [[head, *(f"{count:,} labels" for count in counts)]]
    rows += [[name, *(spread(found[count]) for count in counts)] for name, found in results.items()]
    for more, less in (pair for pair in GAINS if results.keys() >= {*pair}):
        rows += [[f"{more} minus {less}", *(gain(results[more][count], results[less][count]) for count in counts)]]
    return markdown(rows)


def draw(losses: Mapping[str, Sequence[tuple[int, float]]], results: Results, file: Path) -> None:
    """The losses of pre-training in each framework, and top-1 by number of labels with every seed as a point."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for (backend, points), (color, width) in zip(losses.items(), (("#ee4c2c", 4.0), ("#222222", 1.0)), strict=False):
        left.plot(*zip(*points, strict=True), color=color, linewidth=width, alpha=0.6, label=backend)
    left.set(xlabel="update", ylabel="loss of pre-training")
    for row, color in CURVES.items():
        scores = results.get(row, {})
        right.plot(list(scores), [mean(each) for each in scores.values()], color=color, label=row)
        for count, each in scores.items():
            right.plot([count] * len(each), each, ".", color=color, markersize=4)
    right.set(xscale="log", xlabel="labelled images", ylabel="top-1, %")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def arguments(description: str | None, name: str) -> argparse.ArgumentParser:
    """The flags that all studies share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", nargs="+", choices=backends.NAMES, default=backends.NAMES)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds; the pre-training is shared")
    parser.add_argument("--output_dir", type=Path, default=Path("runs", name))
    parser.add_argument("--processes", type=int, default=0, help="runs at the same time (0: one per core)")
    return parser
