"""The picture of a sweep: time against mask ratio."""

from benchmarks.engines import Row, machine


def draw(rows: list[Row], path: str) -> None:
    """One curve an engine, of the medians, with the fastest and slowest step as bars."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "benchmarks"  # the same picture, the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    for label in dict.fromkeys(row.label for row in rows):
        mine = [row for row in rows if row.label == label]
        ratios, medians = [row.job["mask_ratio"] for row in mine], [row.median for row in mine]
        low = [row.median - min(row.seconds) for row in mine]
        high = [max(row.seconds) - row.median for row in mine]
        axes.errorbar(ratios, medians, (low, high), marker="o", capsize=3, label=label)
    job = rows[0].job
    axes.set(xlabel="mask ratio", ylabel="seconds a step", yscale="log")
    axes.set_title(f"{job['model']}, {job['part']}, {job['batch_size']} images, {machine()['processor']}", fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)
    pyplot.close(figure)
