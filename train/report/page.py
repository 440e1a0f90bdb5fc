"""The HTML page: plots, key figures, pictures and configuration of a run."""

import base64
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import NamedTuple

from train.data.names import printable
from train.errors import TrainError, missing_package
from train.report import confusion, plots
from train.report.run_data import RunData, evenly_spaced, load

PLOTS: dict[str, tuple[str, tuple[str, ...], float | None]] = {
    "loss": ("Loss", ("loss", "val_loss", "val_loss_ema"), None),
    "accuracy": ("Accuracy (%)", ("acc1", "acc1_ema", "acc5", "acc5_ema"), 100.0),
    "lr": ("Learning rate", ("lr",), None),
    "grad_norm": ("Norm of the gradient", ("grad_norm",), None),
    "images_per_s": ("Images per second", ("images_per_s",), None),
}
"""File in plots/ -> its title, the metrics on it (those of the EMA are dashed), the end of its y axis."""

NAMES = {
    "loss": "training",
    "val_loss": "validation",
    "acc1": "top-1",
    "acc5": "top-5",
    "macro_f1": "macro F1",
}
NAMES |= {f"{metric}_ema": f"{name}, EMA" for metric, name in NAMES.items()}

CONFUSIONS = 12  # largest number of confusions that a page lists
PICTURES = 6  # largest number of reconstruction pictures on a page


class Figure(NamedTuple):
    """A key figure at the top of the page."""

    name: str
    value: str
    note: str = ""


def write(run_dir: Path) -> Path:
    """Write report.html and plots/ into a run directory, from its files alone; return the page.

    TrainError if the folder is not a run directory or cannot be written.
    """
    run = load(run_dir)
    drawn = {file: svg for file in PLOTS if (svg := _plot(run, file))}
    page = run_dir / "report.html"
    try:
        (run_dir / "plots").mkdir(exist_ok=True)
        for file, svg in drawn.items():
            (run_dir / "plots" / f"{file}.svg").write_text(plots.standalone(svg), encoding="utf-8")
        html = _page(run, [plots.inline(svg) for svg in drawn.values()])
        page.write_text(html, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise TrainError(f"{run_dir}: the report cannot be written: {error.strerror}") from None
    return page


def _plot(run: RunData, file: str) -> str | None:
    """The SVG of a plot; None if the run logged none of its metrics."""
    title, metrics, top = PLOTS[file]
    names = list(dict.fromkeys(name.removesuffix("_ema") for name in metrics))
    curves = []
    for name in metrics:
        epochs, values = run.series(name)
        colour, is_ema = names.index(name.removesuffix("_ema")), name.endswith("_ema")
        if epochs:
            curves.append(plots.curve(NAMES.get(name, name), epochs, values, colour, is_ema))
    return plots.draw(title, "epoch", curves, top) if curves else None


def _page(run: RunData, drawn: list[str]) -> str:
    from jinja2 import Environment, StrictUndefined

    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    jinja = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    values = run.values()
    return jinja.from_string(template).render(
        run=run,
        model=_model(run),
        state=_state(run),
        figures=_figures(run),
        plots=drawn,
        confusions=[_confusions(file) for file in run.confusions],
        pictures=[(_caption(run, file), _data_url(file)) for file in evenly_spaced(run.pictures, PICTURES)],
        command=run.command(),
        changed=[value for value in values if value.value != value.default],
        values=values,
        light=plots.LIGHT,
        dark=plots.DARK,
    )


def _confusions(file: Path) -> tuple[str, str | None, list[str]]:
    """A title, the matrix drawn if its classes are few, and lines about the largest entries off its diagonal."""
    classes, matrix = confusion.read(file)
    title = "Confusion matrix" + (" of the EMA" if file.stem.endswith("_ema") else "")
    few = len(classes) <= confusion.DRAWN
    drawn = plots.inline(plots.heat_map(title, list(map(printable, classes)), matrix)) if few else None
    return title, drawn, list(map(str, confusion.most_frequent(classes, matrix, CONFUSIONS)))


def _model(run: RunData) -> str:
    model = run.config.model
    sizes = {"depths": model.depths, "dims": model.dims}
    return model.model or " and ".join(f"{name} {' '.join(map(str, size or ()))}" for name, size in sizes.items())


def _state(run: RunData) -> str:
    """Finished, or where it stopped."""
    epochs, steps = run.config.optimizer.epochs, run.config.checkpoints.max_steps
    goal, unit = (epochs, "epoch") if steps is None else (steps, "step")
    reached = run.last(unit) or 0
    return "finished" if reached >= goal else f"stopped at {unit} {reached:,.4g} of {goal:,}"


def _figures(run: RunData) -> list[Figure]:
    """The last losses, the best accuracies, the number of epochs, and the speed."""
    found = []
    for name in ("loss", "val_loss"):
        if (value := run.last(name)) is not None:
            found.append(Figure(f"{NAMES[name]} loss", f"{value:.4g}", "last"))
    for name in ("acc1", "acc1_ema"):
        epochs, values = run.series(name)
        if values:
            best = max(values)
            found.append(Figure(NAMES[name], f"{best:.2f} %", f"best, epoch {epochs[values.index(best)]:.4g}"))
    for name in ("macro_f1", "macro_f1_ema"):
        if (value := run.last(name)) is not None:
            found.append(Figure(NAMES[name], f"{value:.2f} %", "last"))
    found.append(Figure("epochs", f"{run.last('epoch') or 0:,.4g}", f"{run.last('step') or 0:,} updates"))
    found += [Figure(name, value, note) for name, value, note in _times(run)]
    if speeds := run.series("images_per_s")[1]:
        found.append(Figure("images per second", f"{median(speeds):,.0f}", "median"))
    left_out = run.last("eval_skipped") or 0
    note = "broken, replaced by others" + (f"; {left_out:,.0f} left out of the evaluation" if left_out else "")
    found.append(Figure("skipped images", f"{sum(run.series('skipped')[1]):,.0f}", note))
    return found


def _times(run: RunData) -> Iterator[tuple[str, str, str]]:
    """The date of the first log line, and the time from there to the last."""
    times = run.series("time")[1]
    if times:
        first, last = (datetime.fromtimestamp(times[index], UTC) for index in (0, -1))
        yield "date", f"{first:%Y-%m-%d}", f"{first:%H:%M} to {last:%Y-%m-%d %H:%M} UTC"
        yield "duration", str(timedelta(seconds=round(times[-1] - times[0]))), "first to last log line, pauses included"


def _caption(run: RunData, file: Path) -> str:
    """The epoch of a picture."""
    step = int(file.stem.removeprefix("step-"))
    epoch = next((line["epoch"] for line in run.lines if line["step"] == step), None)
    return f"step {step:,}" if epoch is None else f"epoch {epoch:.4g}"


def _data_url(file: Path) -> str:
    """The picture as a data URL: PNG, or WebP if that is smaller."""
    from PIL import Image

    png, webp = file.read_bytes(), io.BytesIO()
    with Image.open(file) as image:
        image.save(webp, "WEBP", quality=90, method=4)
    kind, data = min(("png", png), ("webp", webp.getvalue()), key=lambda one: len(one[1]))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def try_write(run_dir: Path) -> str:
    """Write the report at the end of a run; return a line with its path, or with the error."""
    try:
        return f"report: {write(run_dir)}"
    except ModuleNotFoundError as error:
        return f"no report: {missing_package(error)}"
    except Exception as error:  # the run itself is done and saved
        return f"no report: {' '.join(str(error).split()) or type(error).__name__}"
