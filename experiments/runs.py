"""Runs of `python -m train` for experiments: one after the other in several processes, none of them twice."""

import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from time import monotonic
from typing import Any


@dataclass(frozen=True)
class Run:
    """`python -m MODULE WORDS`, which writes `result` to a folder. needs: a folder whose run must end first."""

    folder: Path
    words: tuple[str, ...]
    result: str = "metrics.jsonl"
    module: str = "train.__main__"
    needs: Path | None = None

    @property
    def finished(self) -> bool:
        """Whether it ran to its end; exits if it ran with other flags."""
        done = self.folder / "finished"
        if done.exists() and done.read_text(encoding="utf-8") != " ".join(self.words):
            sys.exit(f"--output_dir {self.folder.parents[1]}: holds runs with other flags; give another ({done})")
        return done.exists()

    def once(self) -> "Run":
        """Run to the end in this process, unless it has; exits if it fails."""
        try:
            if not self.finished:
                self.start()
        except RuntimeError as error:
            sys.exit(str(error))
        return self

    def start(self) -> float:
        """Run to the end in this process and return the seconds that it took; RuntimeError if it fails."""
        start, log = monotonic(), self.folder / "log.txt"
        self.folder.mkdir(parents=True, exist_ok=True)
        command = f"python -m {self.module.removesuffix('.__main__')} {' '.join(self.words)}"
        with log.open("w", encoding="utf-8") as text, redirect_stdout(text), redirect_stderr(text):
            try:
                status = import_module(self.module).main(self.words)
            except Exception as error:  # of whatever kind: it is the run's
                raise RuntimeError(f"{command}: {error}") from error
        if status:
            *_, last = log.read_text(encoding="utf-8").splitlines() or ["no output"]
            raise RuntimeError(f"{command}: {last}")
        (self.folder / "finished").write_text(" ".join(self.words), encoding="utf-8")
        return monotonic() - start

    def read(self) -> dict[str, Any]:
        """Its result, or the last line of it."""
        return self.lines()[-1]

    def lines(self) -> list[dict[str, Any]]:
        """The lines of its result; a .json file is one."""
        text = (self.folder / self.result).read_text(encoding="utf-8")
        return [json.loads(line) for line in ([text] if self.result.endswith(".json") else text.splitlines())]

    @property
    def acc1(self) -> float:
        """The top-1 of its last evaluation, in per cent."""
        return float(self.read()["acc1"])


class Queue:
    """Processes that take one run after the other, each on its share of the cores; XLA compiles once per process."""

    def __init__(self, processes: int = 0) -> None:
        """processes: 0 is one per core."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.processes = processes or cores
        self.threads = max(cores // self.processes, 1)

    def run(self, runs: Sequence[Run]) -> None:
        """Run what has not finished and print the seconds of each; exits at the first that fails."""
        left = {run.folder: run for run in runs if not run.finished}
        running: dict[Future[float], Run] = {}
        with ProcessPoolExecutor(self.processes, get_context("spawn"), _use_threads, (self.threads,)) as pool:
            while left or running:
                unfinished = {*left, *(run.folder for run in running.values())}
                ready = [run for run in left.values() if run.needs not in unfinished]
                for run in ready[: self.processes - len(running)]:
                    running[pool.submit(Run.start, left.pop(run.folder))] = run
                for ended in wait(running, return_when=FIRST_COMPLETED).done:
                    run = running.pop(ended)
                    try:
                        print(f"{run.folder.parent.name}/{run.folder.name}: {ended.result():.0f} s", flush=True)
                    except RuntimeError as error:
                        pool.shutdown(wait=False, cancel_futures=True)
                        sys.exit(str(error))


def _use_threads(count: int) -> None:
    """Keep the frameworks, which this process has not imported yet, to a number of threads."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    if count == 1:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()


def spread(values: Sequence[float]) -> str:
    """Mean, standard deviation, smallest and largest, e.g. "92.1 ± 0.5 (91.5 to 92.9)"."""
    deviation = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.1f} ± {deviation:.1f} ({min(values):.1f} to {max(values):.1f})"


def gain(more: Sequence[float], less: Sequence[float]) -> str:
    """The spread of the differences per seed, and how many are above 0."""
    gains = [a - b for a, b in zip(more, less, strict=True)]
    return f"{spread(gains)}; above 0 in {sum(each > 0 for each in gains)} of {len(gains)}"
