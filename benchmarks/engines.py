"""Engines side by side: one worker process per row; the rows take timed steps in turn."""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

import backends
from benchmarks import outside
from benchmarks.errors import BenchmarkError

SHARED = ("model", "batch_size", "image_size", "mask_ratio", "dtype", "what", "part", "device")


@dataclass(frozen=True)
class Row:
    """The measurements of one engine: seconds per timed step, peak bytes, and the job that was run."""

    job: dict[str, Any]
    seconds: list[float]
    peak_bytes: int
    first_step_s: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and third quartile of the seconds."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, method="inclusive")
        return low, high

    @property
    def throughput(self) -> float:
        """Images per second."""
        return float(self.job["batch_size"] / self.median)

    @property
    def warm_up(self) -> float:
        """Seconds of the first step beyond the median."""
        return max(0.0, self.first_step_s - self.median)

    @property
    def label(self) -> str:
        compiled = ", compiled" if self.job["compiled"] else ""
        return f"{self.job['backend']} {self.job['engine']}{compiled}"

    def as_dict(self) -> dict[str, Any]:
        figures = {"median_s": self.median, "quartiles_s": self.quartiles, "warm_up_s": self.warm_up}
        return asdict(self) | figures | {"images_per_s": self.throughput}

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Row":
        """The row that `as_dict` wrote."""
        return cls(*(values[name] for name in ("job", "seconds", "peak_bytes", "first_step_s")))


def jobs(args: argparse.Namespace, **changed: Any) -> list[dict[str, Any]]:
    """The jobs to run: every chosen engine of every chosen backend, and timm's encoder.

    changed: options that override those in `args`. BenchmarkError if they contradict each other.
    """
    same = {name: getattr(args, name, None) for name in SHARED} | changed
    if not same["mask_ratio"] and (same["part"], same["what"]) != ("encoder", "gradient"):
        raise BenchmarkError("--mask_ratio 0: nothing is removed, so there is no loss; add --part encoder")
    if same["what"] == "step" and same["part"] != "fcmae":
        raise BenchmarkError("--what step: a step trains the whole model; leave out --part encoder")
    found = []
    for backend in args.backends:
        available = backends.load(backend).ENGINES
        chosen = [engine for engine in available if args.engines is None or engine in args.engines]
        eager = [(engine, False) for engine in chosen]
        compiled = [(engine, True) for engine in chosen if engine != "minkowski"]
        rows = eager + (compiled if args.compiled and backend == "torch" and same["what"] != "step" else [])
        found += [{"backend": backend, **same, "engine": engine, "compiled": compile_} for engine, compile_ in rows]
    found += [{"backend": "timm", **same, "engine": "dense", "compiled": each} for each in _outside(args, same)]
    if not found:
        raise BenchmarkError(f"--engines {' '.join(args.engines)}: not an engine of {', '.join(args.backends)}")
    return found


def _outside(args: argparse.Namespace, same: dict[str, Any]) -> list[bool]:
    """Whether torch.compile is used, for each row of timm's encoder; empty if timm cannot run the same job."""
    wanted = "torch" in args.backends and (args.engines is None or "dense" in args.engines)
    fits = wanted and same["part"] == "encoder" and outside.has_timm()
    return [False, *([True] if args.compiled else [])] if fits else []


def measure(wanted: list[dict[str, Any]], rounds: int) -> list[Row]:
    """One row per job, each from its own process; within a round every row takes one step."""
    workers = [_Worker(job) for job in wanted]
    try:
        for _ in range(rounds):
            for worker in workers:
                worker.step()
    finally:
        for worker in workers:
            worker.stop()
    return [Row(worker.job, worker.seconds, worker.peak_bytes, worker.first_step_s) for worker in workers]


class _Worker:
    def __init__(self, job: dict[str, Any]) -> None:
        self.job, self.seconds = job, list[float]()
        command = [sys.executable, "-m", "benchmarks.worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ready = json.loads(self._ask(json.dumps(job)))
        self.peak_bytes, self.first_step_s = ready["peak_bytes"], ready["first_step_s"]

    def step(self) -> None:
        self.seconds.append(float(self._ask("step")))

    def stop(self) -> None:
        with self.process:  # which closes its pipes
            self.process.kill()

    def _ask(self, line: str) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise BenchmarkError(f"{self.job['backend']} {self.job['engine']}: the worker died; its message is above")
        return answer
