"""Plots of sweeps: milliseconds per image against mask ratio, batch size or image size."""

from itertools import pairwise
from typing import Any

from benchmarks.engines import Row
from benchmarks.errors import BenchmarkError

AXES: dict[str, tuple[float, ...]] = {
    "mask_ratio": (0.0, 0.3, 0.6, 0.75, 0.9),
    "batch_size": (1, 2, 4, 8, 16),
    "image_size": (128, 160, 224, 288),
}
"""What a sweep can vary, and the values that it measures by default."""

COLOURS = {"torch": "C0", "jax": "C1", "timm": "C2"}
LINES = {"visible": "-", "masked": "--", "minkowski": ":", "dense": "-."}


def rises(rows: list[Row]) -> list[str]:
    """One line for every mask ratio at which a visible engine is no faster than at the ratio before it."""
    lines = []
    for label, mine in _curves([row for row in rows if row.job["engine"] == "visible"], "mask_ratio").items():
        for before, row in pairwise(mine):
            if row.median >= before.median:
                ratios = before.job["mask_ratio"], row.job["mask_ratio"]
                seconds = f"{before.median:.3f} and {row.median:.3f} s"
                lines.append(f"{label}: no faster at mask ratio {ratios[1]:g} than at {ratios[0]:g} ({seconds})")
    return lines


def draw(documents: list[dict[str, Any]], path: str) -> None:
    """One panel per swept quantity, one curve per engine: medians, with quartiles as error bars."""
    panels: dict[str, list[Row]] = {}
    for document in documents:
        if document["over"] not in AXES:
            raise BenchmarkError("plot: a file is not of a sweep; python -m benchmarks sweep --json FILE writes one")
        panels.setdefault(document["over"], []).extend(Row.of(row) for row in document["rows"])

    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams |= {"svg.hashsalt": "benchmarks", "svg.fonttype": "none"}  # deterministic and small
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.2 * len(panels), 4), layout="constrained", squeeze=False)
    for panel, (over, rows) in zip(axes[0], panels.items(), strict=True):
        _panel(panel, over, rows)
    axes[0][0].set_ylabel("milliseconds per image")
    axes[0][-1].legend(fontsize=8)
    figure.suptitle(_title(documents), fontsize=9)
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)
    pyplot.close(figure)


def _panel(axes: Any, over: str, rows: list[Row]) -> None:
    from matplotlib.ticker import LogLocator

    for label, mine in _curves(rows, over).items():
        values, each = [row.job[over] for row in mine], [1e3 / row.throughput for row in mine]
        spread = [
            [1e3 / row.job["batch_size"] * abs(row.quartiles[side] - row.median) for row in mine] for side in (0, 1)
        ]
        style = {"color": COLOURS[mine[0].job["backend"]], "linestyle": LINES[mine[0].job["engine"]]}
        axes.errorbar(values, each, spread, marker="o", markersize=3, label=label, **style)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    if over != "mask_ratio":
        axes.set_xscale("log", base=2)
    axes.set_xticks(values, [f"{value:g}" for value in values], minor=False)
    axes.minorticks_off()
    job = rows[0].job
    others = {"mask_ratio": "mask ratio {:g}", "batch_size": "{} images", "image_size": "{} px"}
    axes.set_title(", ".join(text.format(job[name]) for name, text in others.items() if name != over), fontsize=9)
    axes.set_xlabel(over.replace("_", " "))
    axes.grid(alpha=0.3)


def _curves(rows: list[Row], over: str) -> dict[str, list[Row]]:
    """Label -> the rows of an engine, sorted by the swept quantity."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.job[over]):
        found.setdefault(row.label, []).append(row)
    return found


def _title(documents: list[dict[str, Any]]) -> str:
    job, machine = documents[0]["rows"][0]["job"], documents[0]["machine"]
    what = f"{job['model']}, {job['what']} of the {job['part']}, {job['dtype']}"
    return f"{what}; {machine['cores']} cores of {machine['processor']}"
