"""Whole training steps and inference of both frameworks on one GPU, beside plain masked ones and timm.

The visible rows compile first, alone on the machine but for each other; then the rest, side by side. Steps are timed
in turn once all are ready.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import backends
from benchmarks import profiles
from benchmarks.engines import Row, Worker
from benchmarks.errors import BenchmarkError
from benchmarks.peaks import Peak
from benchmarks.tables import describe_machine, limit

DEFAULTS: dict[str, Any] = {"compiled": None, "graphs": None}  # as `python -m train` chooses by the device
QUIET = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # workers share the device's memory


class Line(NamedTuple):
    """A row of the table: its own part of the job, and the row that it is compared with."""

    label: str
    job: dict[str, Any]
    against: str = ""
    share: float = 1.0  # of the batch


STEP: dict[str, Any] = {"what": "step", "part": "fcmae", **DEFAULTS}
DENSE: dict[str, Any] = {"engine": None, "what": "step", "part": "classifier", "mask_ratio": 0, **DEFAULTS}
INFERENCE: dict[str, Any] = {**DENSE, "what": "forward"}
VISIBLE = (
    Line("FCMAE, torch, visible", {"backend": "torch", "engine": "visible", **STEP}, "FCMAE, torch, masked"),
    Line("FCMAE, JAX, visible", {"backend": "jax", "engine": "visible", **STEP}, "FCMAE, JAX, masked"),
)
OTHERS = (
    Line("FCMAE, torch, masked", {"backend": "torch", "engine": "masked", **STEP}),
    Line("FCMAE, JAX, masked", {"backend": "jax", "engine": "masked", **STEP}),
    Line("fine-tuning, timm", {"backend": "timm", **DENSE}, share=0.25),
    Line("fine-tuning, torch", {"backend": "torch", **DENSE}, "fine-tuning, timm", 0.25),
    Line("fine-tuning, JAX", {"backend": "jax", **DENSE}, "fine-tuning, timm", 0.25),
    Line("inference, timm", {"backend": "timm", **INFERENCE}, share=0.25),
    Line("inference, torch", {"backend": "torch", **INFERENCE}, "inference, timm", 0.25),
    Line("inference, JAX", {"backend": "jax", **INFERENCE}, "inference, timm", 0.25),
)
"""All compiled. Batches are such that the rows fit into 140 GB side by side."""

READY = 0.65
"""Of the seconds given: rows that are not ready by then are left out. The rest is for what follows."""


class Found(NamedTuple):
    """The rows that were ready in time, their kernels, and a line for each that was not."""

    rows: dict[str, Row]
    kernels: dict[str, profiles.Kernels]
    cached: dict[str, float]  # seconds of a second process's first step
    digits: dict[str, list[float]]  # seconds of a short run of each backend: with nothing cached, and again
    missing: list[str]


def measure(lines: Sequence[Sequence[Line]], shared: dict[str, Any], rounds: int, seconds: float) -> Found:
    """Time groups of rows, of which each compiles when the group before is ready; then what is cached.

    shared: model, image_size, batch_size, dtype, device. What takes longer than some seconds in all is left out.
    """
    start, found, workers, ready = time.monotonic(), Found({}, {}, {}, {}, []), dict[str, Worker](), dict[str, Worker]()
    try:
        for group in lines:
            started = {line.label: Worker(_job(line, shared), **QUIET) for line in group}
            workers |= started
            ready |= _ready(started, start + READY * seconds, found.missing)
        for _ in range(rounds):
            for worker in ready.values():
                worker.step()
        found.rows.update((label, worker.row) for label, worker in ready.items())
        for label, worker in ready.items():
            try:
                found.kernels[label] = worker.profile()
            except BenchmarkError as error:
                found.missing.append(f"profile of {label}: {error}")
        first = {line.label: ready[line.label] for line in lines[0] if line.label in ready}
        for label in workers.keys() - first.keys():
            workers[label].stop()
        _start_again(first, start + seconds, found)
    finally:
        for worker in workers.values():
            worker.stop()
    _train_digits(shared["device"], start + seconds, found)
    return found


def _start_again(first: dict[str, Worker], end: float, found: Found) -> None:
    """First steps of second processes, with what the first ones have compiled."""
    again = {label: Worker(worker.job, worker, **QUIET) for label, worker in first.items()}
    try:
        ready = _ready(again, end, found.missing)
        found.cached.update((label, worker.first_step_s) for label, worker in ready.items())
    finally:
        for worker in again.values():
            worker.stop()


def _train_digits(device: str, end: float, found: Found) -> None:
    with ThreadPoolExecutor() as threads, tempfile.TemporaryDirectory() as folder:
        runs = {name: threads.submit(_digits, name, device, Path(folder), end) for name in backends.installed()}
        for name, run in runs.items():
            try:
                found.digits[name] = run.result()
            except subprocess.TimeoutExpired:
                found.missing.append(f"digits, {name}: not done in time")
            except subprocess.CalledProcessError as error:
                found.missing.append(f"digits, {name}: exit status {error.returncode}; its message is above")


def _digits(backend: str, device: str, folder: Path, end: float) -> list[float]:
    """Seconds of 30 training steps on the digits, from the command to its end: with nothing cached, and again.

    Both frameworks run at once."""
    command = [sys.executable, "-m", "train", "--backend", backend, "--max_steps", "30", "--device", device]
    command += ["--compilation_cache", str(folder / backend), "--output_dir"]
    seconds = []
    for run in ("cold", "cached"):
        started = time.monotonic()
        place = str(folder / f"{backend}-{run}")
        left = max(1.0, end - started)
        subprocess.run([*command, place], check=True, timeout=left, stdout=subprocess.DEVNULL, env=os.environ | QUIET)
        seconds.append(time.monotonic() - started)
    return seconds


def _job(line: Line, shared: dict[str, Any]) -> dict[str, Any]:
    return {"mask_ratio": 0.6, **shared, **line.job, "batch_size": max(1, int(line.share * shared["batch_size"]))}


def _ready(workers: dict[str, Worker], end: float, missing: list[str]) -> dict[str, Worker]:
    """Those whose first steps are done before `end`; the others are stopped, since they would disturb the timing."""
    ready = {}
    for label, worker in workers.items():
        try:
            if worker.wait(max(0.0, end - time.monotonic())):
                ready[label] = worker
                continue
            missing.append(f"{label}: not ready in time")
        except BenchmarkError as error:
            missing.append(f"{label}: {error}")
        worker.stop()
    return ready


def device_name(device: str) -> str:
    """The name of a CUDA device, or the device itself."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)


def markdown(found: Found, lines: Sequence[Line], device: str, peak: Peak) -> str:
    """The table of docs/performance.md, and a profile of each row by kind of kernel."""
    text = [f"{device}, {describe_machine()}, {time.strftime('%d %B %Y')}", ""]
    names = ["", "images", "ms", "images/s", "speed-up", "roofline", "peak GB", "first step, s", "cached, s"]
    text += [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    text += [_cells(line, found, peak) for line in lines if line.label in found.rows]
    for name, (cold, cached) in found.digits.items():
        text += ["", f"`python -m train --backend {name} --max_steps 30`, digits: {cold:.0f} s, cached {cached:.0f} s"]
    text += ["", "| ms by kind of kernel, launches |", "|---|"]
    for label, kernels in found.kernels.items():
        kinds = ", ".join(f"{kind} {ms:.1f} ({n})" for kind, (ms, n) in profiles.by_kind(kernels).items())
        text.append(f"| {label}: {kinds or 'no GPU'} |")
    return "\n".join([*text, "", *found.missing])


def _cells(line: Line, found: Found, peak: Peak) -> str:
    row, base = found.rows[line.label], found.rows.get(line.against)
    share = "" if row.job["part"] == "classifier" else f"{limit(row.job, peak) / row.median:.0%}"
    cells = [
        line.label,
        str(row.job["batch_size"]),
        f"{row.median * 1e3:.1f}",
        f"{row.throughput:,.0f}",
        f"{row.throughput / base.throughput:.2f}x" if base else "",
        share,
        f"{row.peak_bytes / 1e9:.1f}",
        f"{row.first_step_s:.0f}",
        f"{found.cached[line.label]:.0f}" if line.label in found.cached else "",
    ]
    return f"| {' | '.join(cells)} |"


def document(found: Found, peak: Peak) -> dict[str, Any]:
    """All measurements, for JSON."""
    rows = {label: row.as_dict() for label, row in found.rows.items()}
    return {"machine": describe_machine(), "peak": peak._asdict(), **found._asdict(), "rows": rows}
