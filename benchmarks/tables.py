"""Rows as text and as JSON: medians with quartiles, throughput, memory, and the share of the roofline."""

import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from typing import Any

import spec
from benchmarks import roofline
from benchmarks.engines import Row
from benchmarks.peaks import Peak
from spec import console
from train.logs.machine import processor

PACKAGES = ("torch", "jax", "flax", "numpy", "timm", "MinkowskiEngine")
HEAD = ["engine", "median s", "quartiles", "images/s", "roofline", "speed-up", "peak MB", "memory", "warm-up s"]
NOTES = """roofline: its time over the median. speed-up, memory: relative to masked of the same framework.
warm-up: the first step minus the median: compilation under JAX and torch.compile, allocation in eager torch."""


def table(rows: list[Row], peak: Peak) -> str:
    """The machine, the job and the peak; then one row per engine."""
    lines = [describe_machine(), title(rows[0].job)]
    lines.append(f"roofline: {peak.tflops:.3g} TFLOP/s and {peak.gbps:.3g} GB/s ({peak.source})")
    cells = [HEAD, *(_cells(row, _base(row, rows), peak) for row in rows)]
    return "\n".join([*lines, "", console.table(cells, "<>"), "", NOTES])


def _cells(row: Row, base: Row, peak: Peak) -> list[str]:
    return [
        row.label,
        f"{row.median:.3f}",
        "{:.3f} to {:.3f}".format(*row.quartiles),
        f"{row.throughput:.1f}",
        f"{limit(row.job, peak) / row.median:.0%}",
        f"{base.median / row.median:.2f}x",
        f"{row.peak_bytes / 1e6:.0f}",
        f"{row.peak_bytes / base.peak_bytes:.2f}x",
        f"{row.warm_up:.1f}",
    ]


def _base(row: Row, rows: list[Row]) -> Row:
    """The row that a row is compared with: masked of the same framework; torch's for timm."""
    backend = "jax" if row.job["backend"] == "jax" else "torch"
    found = (r for r in rows if (r.job["backend"], r.job["engine"]) == (backend, "masked"))
    return next(found, row)


def document(rows: list[Row], peak: Peak, over: str | None = None) -> dict[str, Any]:
    """All measurements, for JSON. over: the quantity that a sweep varied."""
    found = [row.as_dict() | {"of_limit": limit(row.job, peak) / row.median} for row in rows]
    return {"machine": machine(), "peak": peak._asdict(), "over": over, "rows": found}


def title(job: dict[str, Any]) -> str:
    """The job of every row, in words."""
    what = {"forward": "forward", "gradient": "forward and backward", "step": "a whole training step"}[job["what"]]
    return (
        f"{job['model']}, {what} of the {job['part']}, {job['batch_size']} images of {job['image_size']} px,"
        f" mask ratio {job['mask_ratio']:g}, {job['dtype']}"
    )


def limit(job: dict[str, Any], peak: Peak) -> float:
    """The roofline's seconds for a job, at the visible patches even for engines that compute all."""
    model = spec.fcmae(job["model"], image_size=job["image_size"], mask_ratio=job["mask_ratio"] or 0.6)
    visible = None if job["mask_ratio"] else model.grid[0] * model.grid[1]
    options = {name: job[name] for name in ("dtype", "what", "part")}
    found = roofline.bounds(model, job["batch_size"], visible=visible, **options)
    return roofline.limit(found, peak.tflops, peak.gbps)


def machine() -> dict[str, Any]:
    """Processor, cores and versions."""
    about = {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    return about | versions(PACKAGES)


def describe_machine() -> str:
    """Processor, cores and versions on one line."""
    return ", ".join(f"{key} {value}" for key, value in machine().items())


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of the packages that are installed."""
    found = {}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
