"""Rows as text and as JSON: medians with quartiles, throughput, memory, and the share of what is possible."""

import os
import platform
from importlib import metadata
from typing import Any

import spec
from benchmarks import roofline
from benchmarks.engines import Row
from benchmarks.peaks import Peak

PACKAGES = ("torch", "jax", "flax", "numpy", "timm", "MinkowskiEngine")
HEAD = (
    f"{'engine':<26}{'median s':>10}{'quartiles':>16}{'images/s':>10}{'of limit':>10}"
    f"{'faster':>8}{'peak MB':>9}{'memory':>8}{'warm-up s':>11}"
)
NOTES = """quartiles: a quarter of the steps took less, a quarter more. of limit: the roofline's time over the median.
faster, memory: against masked of the same framework. warm-up: the first step less the median one; that is tracing
and compiling under JAX and torch.compile, and fresh memory in eager torch."""


def table(rows: list[Row], peak: Peak) -> str:
    """The machine, what was run and on what peak the limit rests; then a row an engine."""
    lines = [describe_machine(), title(rows[0].job)]
    lines.append(f"limit: {peak.tflops:.3g} TFLOP/s and {peak.gbps:.3g} GB/s ({peak.source})")
    return "\n".join([*lines, "", HEAD, *(_line(row, _base(row, rows), peak) for row in rows), "", NOTES])


def _line(row: Row, base: Row, peak: Peak) -> str:
    low, high = row.quartiles
    return (
        f"{row.label:<26}{row.median:>10.3f}{f'{low:.3f} to {high:.3f}':>16}{row.throughput:>10.1f}"
        f"{limit(row.job, peak) / row.median:>10.0%}{base.median / row.median:>7.2f}x{row.peak_bytes / 1e6:>9.0f}"
        f"{row.peak_bytes / base.peak_bytes:>7.2f}x{row.warm_up:>11.1f}"
    )


def _base(row: Row, rows: list[Row]) -> Row:
    """The row that others are compared with: masked of the same framework, torch's for a library built on it."""
    backend = "jax" if row.job["backend"] == "jax" else "torch"
    found = (r for r in rows if (r.job["backend"], r.job["engine"]) == (backend, "masked"))
    return next(found, row)


def document(rows: list[Row], peak: Peak, over: str | None = None) -> dict[str, Any]:
    """All that was measured, as JSON knows it. over: what a sweep went through."""
    found = [row.as_dict() | {"of_limit": limit(row.job, peak) / row.median} for row in rows]
    return {"machine": machine(), "peak": peak._asdict(), "over": over, "rows": found}


def title(job: dict[str, Any]) -> str:
    """What every row has done."""
    what = {"forward": "forward", "gradient": "forward and backward", "step": "a whole training step"}[job["what"]]
    return (
        f"{job['model']}, {what} of the {job['part']}, {job['batch_size']} images of {job['image_size']} px,"
        f" mask ratio {job['mask_ratio']:g}, {job['dtype']}"
    )


def limit(job: dict[str, Any], peak: Peak) -> float:
    """The seconds that no engine can beat; timm's, too, is held against the patches that are visible."""
    model = spec.fcmae(job["model"], image_size=job["image_size"], mask_ratio=job["mask_ratio"] or 0.6)
    visible = None if job["mask_ratio"] else model.grid[0] * model.grid[1]
    options = {name: job[name] for name in ("dtype", "what", "part")}
    found = roofline.bounds(model, job["batch_size"], visible=visible, **options)
    return roofline.limit(found, peak.tflops, peak.gbps)


def machine() -> dict[str, Any]:
    """Processor, cores and versions."""
    distributions = {name: version for name in PACKAGES if (version := _version(name))}
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    } | distributions


def describe_machine() -> str:
    """Processor, cores and versions on one line."""
    return ", ".join(f"{key} {value}" for key, value in machine().items())


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
