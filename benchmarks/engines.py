"""Engines side by side: one worker process per row; the rows take timed steps in turn."""

import argparse
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from typing import Any

import backends
from benchmarks import outside
from benchmarks.errors import BenchmarkError

CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR")
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
    workers = list[Worker]()
    try:
        for job in wanted:
            workers.append(Worker(job))
            workers[-1].wait()
        for _ in range(rounds):
            for worker in workers:
                worker.step()
    finally:
        for worker in workers:
            worker.stop()
    return [worker.row for worker in workers]


class Worker:
    """A process that prepares a job at once, and takes steps when it is asked to. module: what it runs."""

    module = "benchmarks.worker"

    def __init__(self, job: dict[str, Any], cached: "Worker | None" = None, /, **environment: str) -> None:
        """cached: a worker that has compiled the same."""
        self.job, self.seconds, self.peak_bytes, self.first_step_s = job, list[float](), 0, 0.0
        command, pipe = [sys.executable, "-m", self.module], subprocess.PIPE
        self.compiled: tempfile.TemporaryDirectory[str]  # empty at first, since the first step is timed
        self.compiled = cached.compiled if cached else tempfile.TemporaryDirectory()
        caches = dict.fromkeys(CACHES, self.compiled.name)
        environment = {**os.environ, **caches, **environment}
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self._send(json.dumps(job))

    @property
    def row(self) -> Row:
        """The measurements so far."""
        return Row(self.job, self.seconds, self.peak_bytes, self.first_step_s)

    def wait(self, seconds: float | None = None) -> bool:
        """Whether its first steps are done within some seconds; BenchmarkError if it died."""
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return False
        ready = json.loads(self._receive())
        self.peak_bytes, self.first_step_s = ready["peak_bytes"], ready["first_step_s"]
        return True

    def step(self) -> None:
        self.seconds.append(float(self._ask("step")))

    def profile(self) -> dict[str, tuple[float, int]]:
        """Name of a kernel -> its milliseconds and launches in one step."""
        found: dict[str, tuple[float, int]] = json.loads(self._ask("profile"))
        return found

    def stop(self) -> None:
        with self.process:  # which closes its pipes
            self.process.kill()
        self.compiled.cleanup()

    def _ask(self, line: str) -> str:
        self._send(line)
        return self._receive()

    def _send(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def _receive(self) -> str:
        assert self.process.stdout
        answer = self.process.stdout.readline()
        if not answer:
            raise BenchmarkError(f"{self.job['backend']} {self.job['engine']}: the worker died; its message is above")
        return answer
