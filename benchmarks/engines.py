"""Engines side by side: one worker process a row, asked for a step in turn."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import backends
import spec
from benchmarks import roofline
from benchmarks.errors import BenchmarkError

PACKAGES = ("torch", "jax", "flax", "numpy", "MinkowskiEngine")


@dataclass(frozen=True)
class Row:
    """One engine's figures: seconds of every timed step, bytes, and what was run."""

    job: dict[str, Any]
    seconds: list[float]
    peak_bytes: int
    first_step_s: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def label(self) -> str:
        compiled = ", compiled" if self.job["compiled"] else ""
        return f"{self.job['backend']} {self.job['engine']}{compiled}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"median_s": self.median}


def jobs(args: argparse.Namespace, mask_ratio: float) -> list[dict[str, Any]]:
    """What to run: every engine of every backend asked for; BenchmarkError where there is none."""
    if not mask_ratio and (args.part, args.what) != ("encoder", "gradient"):
        raise BenchmarkError("mask ratio 0: nothing is removed, so there is no loss; add --part encoder")
    same = {
        name: getattr(args, name) for name in ("model", "batch_size", "image_size", "dtype", "what", "part", "device")
    }
    found = []
    for backend in args.backends:
        available = backends.load(backend).ENGINES
        chosen = [engine for engine in available if args.engines is None or engine in args.engines]
        eager = [(engine, False) for engine in chosen]
        compiled = [(engine, True) for engine in chosen if engine != "minkowski"]
        rows = eager + (compiled if args.compiled and backend == "torch" else [])
        options = {"backend": backend, "mask_ratio": mask_ratio, **same}
        found += [{**options, "engine": engine, "compiled": compile_} for engine, compile_ in rows]
    if not found:
        raise BenchmarkError(f"--engines: {args.engines} are not among those of {', '.join(args.backends)}")
    return found


def measure(wanted: list[dict[str, Any]], rounds: int) -> list[Row]:
    """The rows, each from its own process; within a round every row takes one step."""
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
        self.process.kill()
        self.process.wait()

    def _ask(self, line: str) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise BenchmarkError(f"{self.job['backend']} {self.job['engine']}: the worker died; its message is above")
        return answer


def machine() -> dict[str, Any]:
    """Processor, cores and versions."""
    distributions = {name: metadata.version(name) for name in PACKAGES if _installed(name)}
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    } | distributions


def table(rows: list[Row], args: argparse.Namespace) -> str:
    """A line of machine and versions, then a row an engine; ratios are against masked of the same backend."""
    lines = [", ".join(f"{key} {value}" for key, value in machine().items()), _title(rows[0].job), ""]
    limits = args.tflops is not None and args.gbps is not None
    head = f"{'engine':<26}{'median s':>10}{'min':>8}{'max':>8}{'images/s':>10}{'faster':>8}"
    head += f"{'peak MB':>9}{'memory':>8}{'first s':>9}"
    lines.append(head + (f"{'of limit':>10}" if limits else ""))
    for row in rows:
        base = next((r for r in rows if r.job["backend"] == row.job["backend"] and r.job["engine"] == "masked"), row)
        cells = (
            f"{row.label:<26}{row.median:>10.3f}{min(row.seconds):>8.3f}{max(row.seconds):>8.3f}"
            f"{row.job['batch_size'] / row.median:>10.1f}{base.median / row.median:>7.2f}x"
            f"{row.peak_bytes / 1e6:>9.0f}{row.peak_bytes / base.peak_bytes:>7.2f}x{row.first_step_s:>9.1f}"
        )
        lines.append(cells + (f"{_limit(row, args) / row.median:>9.0%}" if limits else ""))
    return "\n".join(lines)


def _title(job: dict[str, Any]) -> str:
    what = {"forward": "forward", "gradient": "forward and backward", "step": "a whole training step"}[job["what"]]
    return (
        f"{job['model']}, {what} of the {job['part']}, {job['batch_size']} images of {job['image_size']} px,"
        f" mask ratio {job['mask_ratio']:g}, {job['dtype']}; memory against masked"
    )


def _limit(row: Row, args: argparse.Namespace) -> float:
    job = row.job
    model = spec.fcmae(job["model"], image_size=job["image_size"], mask_ratio=job["mask_ratio"] or 0.6)
    visible = None if job["mask_ratio"] else model.grid[0] * model.grid[1]
    options = {name: job[name] for name in ("dtype", "what", "part")}
    return roofline.limit(roofline.bounds(model, job["batch_size"], visible=visible, **options), args.tflops, args.gbps)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
