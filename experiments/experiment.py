"""A study from its first run to its tables: what is missing is run, in both frameworks."""

import argparse
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import backends
from experiments.results import Results, best, draw, scores, searched, table
from experiments.runs import Queue, Run
from experiments.studies import CHOSEN_FOR, PIXELS, PRETRAINED, SCRATCH, Runs, Study
from train.config.cli import parse
from train.data.sources import open_source
from train.schedule import Schedule

QUICK = 12
"""Updates of a run that measures the speed."""

PROBE = 8
"""Seconds that a probe, or pictures, are expected to take."""


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
        self.choose()
        print(self.estimate(), flush=True)
        self.queue.run(self.first_runs())
        self.choose()
        print(searched(self.searches))
        self.queue.run([run for runs in self.runs.values() for run in self.table_runs(runs).values()])
        for backend, runs in self.runs.items():
            if found := self.results(runs):
                print(table(f"top-1, %, {backend}", found))
        losses = {backend: runs.losses() for backend, runs in self.runs.items()}
        draw(losses, self.results(self.first), self.folder / "curves.png")
        print(f"pictures: {self.folder / 'curves.png'}, {self.first.pictures().folder}")

    def choose(self) -> None:
        """Take the best flags of the searches that have ended."""
        for key, search in self.searches.items():
            if search and all(run.finished for runs in search.values() for run in runs):
                self.flags[key] = best(search)

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
            for row, score in scores(name, run).items():
                found.setdefault(row, {}).setdefault(count, []).append(score)
        return found

    def estimate(self) -> str:
        """How long what is missing will take here, from the speed of a few updates of each kind."""
        later = [run for runs in self.runs.values() for run in self.table_runs(runs).values()]
        missing = [run for run in (*self.first_runs(), *later) if not run.finished]
        training = [run for run in missing if run.result == "metrics.jsonl"]
        kinds = {_kind(run): run for run in sorted(training, key=lambda run: run.needs is None)}  # these replace others
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
        with tempfile.TemporaryDirectory() as folder:
            quick = ("--output_dir", folder, "--max_steps", str(QUICK), "--print_freq", str(QUICK // 2))
            measured = replace(run, folder=Path(folder), words=(*run.words, *quick))
            self.queue.run([measured])
            return float([line["images_per_s"] for line in measured.lines() if "images_per_s" in line][-1])


def _kind(run: Run) -> tuple[str, ...]:
    """Runs of one kind are equally fast."""
    return run.words[1], run.module, "finetune" if "finetune" in run.words else "pretrain"


def arguments(description: str | None, name: str) -> argparse.ArgumentParser:
    """The flags that all studies share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", nargs="+", choices=backends.NAMES, default=backends.NAMES)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds; the pre-training is shared")
    parser.add_argument("--output_dir", type=Path, default=Path("runs", name))
    parser.add_argument("--processes", type=int, default=0, help="runs at the same time (0: one per core)")
    return parser
