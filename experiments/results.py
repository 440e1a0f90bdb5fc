"""The tables and curves of a study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from experiments.runs import Run, gain, spread
from experiments.studies import PIXELS, PRETRAINED, SAME, SCRATCH, TIMM
from spec.console import markdown

GAINS = (
    (f"fine-tuned, {PRETRAINED}", f"fine-tuned, {SCRATCH}"),
    (f"fine-tuned, {PRETRAINED}", f"fine-tuned, {SAME}"),
    (f"linear probe, {PRETRAINED}", f"linear probe, {PIXELS}"),
)
"""Pairs of rows whose difference per seed is a row."""

CURVES = {
    f"fine-tuned, {PRETRAINED}": "#1b6ca8",
    f"fine-tuned, {SCRATCH}": "#888888",
    f"fine-tuned, {TIMM}": "#c0a060",
    f"linear probe, {PRETRAINED}": "#7fb3d5",
    f"linear probe, {PIXELS}": "#d98880",
}
"""Row that is drawn -> its colour."""

Results = dict[str, dict[int, list[float]]]
"""Row -> number of labels -> top-1 of each seed."""


def scores(name: str, run: Run) -> dict[str, float]:
    """Row -> top-1."""
    if run.result == "metrics.jsonl":
        return {name: run.acc1}
    found = run.read()
    return {f"10-NN, {name}": found["knn"][0]["acc1"], f"linear probe, {name}": found["linear"]["acc1"]}


def best(search: Mapping[str, Sequence[Run]]) -> str:
    """The flags of the highest mean top-1."""
    return max(search, key=lambda flags: mean(run.acc1 for run in search[flags]))


def searched(searches: Mapping[tuple[str, int], Mapping[str, Sequence[Run]]]) -> str:
    """Markdown: the scores that chose the flags."""
    rows = [("start", "labels", "flags", "top-1 on other training images, %")]
    for (start, count), search in searches.items():
        rows += [
            (start, f"{count:,}", f"`{flags}`", spread([run.acc1 for run in runs])) for flags, runs in search.items()
        ]
    return markdown(rows)


def table(head: str, results: Results) -> str:
    """Markdown: one row per way to classify and per gain, one column per number of labels."""
    counts = list(next(iter(results.values())))
    rows = [[head, *(f"{count:,} labels" for count in counts)]]
    rows += [[name, *(spread(found[count]) for count in counts)] for name, found in results.items()]
    for more, less in (pair for pair in GAINS if results.keys() >= {*pair}):
        rows += [[f"{more} minus {less}", *(gain(results[more][count], results[less][count]) for count in counts)]]
    return markdown(rows)


def draw(losses: Mapping[str, Sequence[tuple[int, float]]], results: Results, file: Path) -> None:
    """The losses of pre-training in each framework, and top-1 by number of labels with every seed as a point."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for (backend, points), (color, width) in zip(losses.items(), (("#ee4c2c", 4.0), ("#222222", 1.0)), strict=False):
        left.plot(*zip(*points, strict=True), color=color, linewidth=width, alpha=0.6, label=backend)
    left.set(xlabel="update", ylabel="loss of pre-training")
    for row, color in CURVES.items():
        scores = results.get(row, {})
        right.plot(list(scores), [mean(each) for each in scores.values()], color=color, label=row)
        for count, each in scores.items():
            right.plot([count] * len(each), each, ".", color=color, markersize=4)
    right.set(xscale="log", xlabel="labelled images", ylabel="top-1, %")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=130)
    plt.close(figure)
