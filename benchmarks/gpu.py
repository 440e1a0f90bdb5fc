"""Whole training steps on one GPU, of both frameworks, beside plain masked ones and timm: a table and profiles.

All workers start at once and compile side by side; steps are timed in turn once all are ready.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

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
DENSE: dict[str, Any] = {"what": "step", "part": "classifier", "mask_ratio": 0, **DEFAULTS}
INFERENCE: dict[str, Any] = {"what": "forward", "part": "encoder", "mask_ratio": 0, "compiled": True}
LINES = (
    Line("FCMAE, torch, masked", {"backend": "torch", "engine": "masked", **STEP}),
    Line("FCMAE, torch, visible", {"backend": "torch", "engine": "visible", **STEP}, "FCMAE, torch, masked"),
    Line("FCMAE, JAX, masked", {"backend": "jax", "engine": "masked", **STEP}),
    Line("FCMAE, JAX, visible", {"backend": "jax", "engine": "visible", **STEP}, "FCMAE, JAX, masked"),
    Line("classifier, timm", {"backend": "timm", "engine": "dense", **DENSE, "compiled": True}, share=0.25),
    Line("classifier, torch", {"backend": "torch", "engine": "masked", **DENSE}, "classifier, timm", 0.25),
    Line("classifier, torch, visible", {"backend": "torch", "engine": "visible", **DENSE}, "classifier, timm", 0.25),
    Line("classifier, JAX, visible", {"backend": "jax", "engine": "visible", **DENSE}, "classifier, timm", 0.25),
    Line("inference, timm", {"backend": "timm", "engine": "dense", **INFERENCE}, share=0.25),
    Line("inference, torch, visible", {"backend": "torch", "engine": "visible", **INFERENCE}, "inference, timm", 0.25),
    Line("inference, JAX, visible", {"backend": "jax", "engine": "visible", **INFERENCE}, "inference, timm", 0.25),
)
"""All compiled. Batches are such that the rows fit into 140 GB side by side."""


class Found(NamedTuple):
    """The rows that were ready in time, their kernels, and a line for each that was not."""

    rows: dict[str, Row]
    kernels: dict[str, profiles.Kernels]
    missing: list[str]


def measure(lines: Sequence[Line], shared: dict[str, Any], rounds: int, seconds: float) -> Found:
    """Time the rows that are ready within some seconds. shared: model, image_size, batch_size, dtype, device."""
    workers = {line.label: Worker(_job(line, shared), **QUIET) for line in lines}
    found = Found({}, {}, [])
    try:
        ready = _ready(workers, time.monotonic() + seconds, found.missing)
        for _ in range(rounds):
            for worker in ready.values():
                worker.step()
        found.rows.update((label, worker.row) for label, worker in ready.items())
        for label, worker in ready.items():
            _profile(label, worker, found)
    finally:
        for worker in workers.values():
            worker.stop()
    return found


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


def _profile(label: str, worker: Worker, found: Found) -> None:
    try:
        found.kernels[label] = worker.profile()
    except BenchmarkError as error:
        found.missing.append(f"profile of {label}: {error}")


def device_name(device: str) -> str:
    """The name of a CUDA device, or the device itself."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)


def markdown(found: Found, lines: Sequence[Line], device: str, peak: Peak) -> str:
    """The table of docs/performance.md, and a profile of each row by kind of kernel."""
    text = [f"{device}, {describe_machine()}, {time.strftime('%d %B %Y')}", ""]
    text += ["| | images | ms | images/s | speed-up | roofline | peak GB | first step, s |", "|---" * 8 + "|"]
    text += [_cells(line, found, peak) for line in lines if line.label in found.rows]
    text += ["", "| ms by kind of kernel, launches |", "|---|"]
    for label, kernels in found.kernels.items():
        kinds = ", ".join(f"{kind} {ms:.1f} ({n})" for kind, (ms, n) in profiles.by_kind(kernels).items())
        text.append(f"| {label}: {kinds or 'no GPU'} |")
    return "\n".join([*text, "", *found.missing])


def _cells(line: Line, found: Found, peak: Peak) -> str:
    row, base = found.rows[line.label], found.rows.get(line.against)
    share = f"{limit(row.job, peak) / row.median:.0%}" if row.job["part"] != "classifier" else ""
    cells = [
        line.label,
        str(row.job["batch_size"]),
        f"{row.median * 1e3:.1f}",
        f"{row.throughput:,.0f}",
        f"{row.throughput / base.throughput:.2f}x" if base else "",
        share,
        f"{row.peak_bytes / 1e9:.1f}",
        f"{row.first_step_s:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def document(found: Found, peak: Peak) -> dict[str, Any]:
    """All measurements, for JSON."""
    rows = {label: row.as_dict() for label, row in found.rows.items()}
    figures = {"rows": rows, "kernels": found.kernels, "missing": found.missing}
    return {"machine": describe_machine(), "peak": peak._asdict(), **figures}
