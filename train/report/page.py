"""The page: plots, figures, pictures and configuration of a run in one HTML file."""

import base64
import io
from pathlib import Path
from statistics import median
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined
from PIL import Image

from train.errors import TrainError
from train.report import plots
from train.report.run_data import Record, load, spread

PLOTS = {
    "loss": ("loss", "val_loss", "val_loss_ema"),
    "accuracy": ("acc1", "acc1_ema", "acc5", "acc5_ema"),
    "lr": ("lr",),
    "grad_norm": ("grad_norm",),
    "images_per_s": ("images_per_s",),
}
"""File in plots/ -> the figures of metrics.jsonl on it; those of the average are dashed."""

TITLES = {
    "loss": "Loss",
    "accuracy": "Accuracy, per cent",
    "lr": "Learning rate",
    "grad_norm": "Norm of the gradient",
    "images_per_s": "Images per second",
}
NAMES = {
    "loss": "training",
    "val_loss": "validation",
    "val_loss_ema": "validation, average",
    "acc1": "top-1",
    "acc5": "top-5",
    "acc1_ema": "top-1, average",
    "acc5_ema": "top-5, average",
}
PICTURES = 6
"""Most reconstruction pictures on a page."""


class Figure(NamedTuple):
    """A number to be seen at once."""

    name: str
    value: str
    note: str = ""


def write(run_dir: Path) -> Path:
    """Write report.html and plots/ into a run directory, from its files alone; returns the page.

    TrainError when the folder is of no run or cannot be written.
    """
    record = load(run_dir)
    drawn = {file: svg for file in PLOTS if (svg := _plot(record, file))}
    page = run_dir / "report.html"
    try:
        (run_dir / "plots").mkdir(exist_ok=True)
        for file, svg in drawn.items():
            (run_dir / "plots" / f"{file}.svg").write_text(plots.framed(svg), encoding="utf-8")
        page.write_text(_page(record, [plots.inline(svg) for svg in drawn.values()]), encoding="utf-8")
    except OSError as error:
        raise TrainError(f"{run_dir}: the report cannot be written: {error.strerror}") from None
    return page


def _plot(record: Record, file: str) -> str | None:
    """The SVG of a plot, or None where the run wrote none of its figures down."""
    kinds = list(dict.fromkeys(name.removesuffix("_ema") for name in PLOTS[file]))
    curves = []
    for name in PLOTS[file]:
        epochs, values = record.series(name)
        colour, averaged = kinds.index(name.removesuffix("_ema")), name.endswith("_ema")
        if epochs:
            curves.append(plots.curve(NAMES.get(name, name), epochs, values, colour, averaged))
    return plots.draw(TITLES[file], "epoch", curves) if curves else None


def _page(record: Record, drawn: list[str]) -> str:
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    jinja = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    values = record.values()
    return jinja.from_string(template).render(
        run=record,
        model=_model(record),
        state=_state(record),
        figures=_figures(record),
        plots=drawn,
        pictures=[(_told(record, file), _embedded(file)) for file in spread(record.pictures, PICTURES)],
        changed=[value for value in values if value.value != value.default],
        values=values,
        light=plots.LIGHT,
        dark=plots.DARK,
    )


def _model(record: Record) -> str:
    model = record.config.model
    sizes = {"depths": model.depths, "dims": model.dims}
    return model.model or " and ".join(f"{name} {' '.join(map(str, size or ()))}" for name, size in sizes.items())


def _state(record: Record) -> str:
    """Finished, or how far it came."""
    epochs, steps = record.config.optimizer.epochs, record.config.checkpoints.max_steps
    goal, unit = (epochs, "epoch") if steps is None else (steps, "step")
    reached = record.last(unit) or 0
    return "finished" if reached >= goal else f"stopped at {unit} {reached:,.4g} of {goal:,}"


def _figures(record: Record) -> list[Figure]:
    """The last loss, the best accuracies, how long it trained and how fast."""
    found = []
    for name in ("loss", "val_loss"):
        if (value := record.last(name)) is not None:
            found.append(Figure(f"{NAMES[name]} loss", f"{value:.4g}", "last"))
    for name in ("acc1", "acc1_ema"):
        epochs, values = record.series(name)
        if values:
            best = max(values)
            found.append(Figure(NAMES[name], f"{best:.2f} %", f"best, epoch {epochs[values.index(best)]:.4g}"))
    found.append(Figure("epochs", f"{record.last('epoch') or 0:,.4g}", f"{record.last('step') or 0:,} updates"))
    if speeds := record.series("images_per_s")[1]:
        found.append(Figure("images a second", f"{median(speeds):,.0f}", "median"))
    if skipped := sum(record.series("skipped")[1]):
        found.append(Figure("broken images", f"{skipped:,}", "skipped"))
    return found


def _told(record: Record, file: Path) -> str:
    """When a picture was taken."""
    step = int(file.stem.removeprefix("step-"))
    epoch = next((line["epoch"] for line in record.lines if line["step"] == step), None)
    return f"step {step:,}" if epoch is None else f"epoch {epoch:.4g}"


def _embedded(file: Path) -> str:
    """The picture as a URL that holds it: PNG, or WebP where that is smaller."""
    png, webp = file.read_bytes(), io.BytesIO()
    with Image.open(file) as image:
        image.save(webp, "WEBP", quality=90, method=4)
    kind, data = min(("png", png), ("webp", webp.getvalue()), key=lambda one: len(one[1]))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def told(run_dir: Path) -> str:
    """Write the report at the end of a run; returns where it is, or why there is none."""
    try:
        return f"report: {write(run_dir)}"
    except Exception as error:  # whatever is wrong with a page, the run itself is done and saved
        return f"no report: {' '.join(str(error).split()) or type(error).__name__}"
