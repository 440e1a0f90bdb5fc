"""Line plots as SVG, drawn by matplotlib without its global state. Colours are filled in afterwards."""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 400  # largest number of points of a curve; longer ones become means with a min-max band
MARKED = 25  # curves of at most this many points show markers

COLOURS = {  # light, dark
    "paper": ("#ffffff", "#16181c"),
    "ink": ("#1c1e21", "#e6e8eb"),
    "faint": ("#6b7280", "#9ca3af"),
    "rule": ("#e5e7eb", "#30343b"),
    "curve-0": ("#2563eb", "#60a5fa"),
    "curve-1": ("#d97706", "#fbbf24"),
    "curve-2": ("#059669", "#34d399"),
    "curve-3": ("#9333ea", "#c084fc"),
    "curve-4": ("#dc2626", "#f87171"),
    "curve-5": ("#0891b2", "#22d3ee"),
}
LIGHT, DARK = ({name: pair[index] for name, pair in COLOURS.items()} for index in (0, 1))
CURVES = sum(name.startswith("curve-") for name in LIGHT)

KEYS = {name: f"#00000{index:x}" for index, name in enumerate(LIGHT)}
"""Placeholder colours for matplotlib, which `standalone` and `inline` replace."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "twinnext",  # the same figure is the same file
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": KEYS["ink"],
    "axes.edgecolor": KEYS["rule"],
    "axes.labelcolor": KEYS["faint"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "grid.color": KEYS["rule"],
    "grid.linewidth": 0.8,
    "xtick.color": KEYS["faint"],
    "ytick.color": KEYS["faint"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.labelcolor": KEYS["ink"],
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
}


class Curve(NamedTuple):
    """One line of a plot, its band if it has one, and the number of its colour."""

    name: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    colour: int
    dashed: bool = False


def curve(name: str, x: Sequence[float], y: Sequence[float], colour: int, dashed: bool = False) -> Curve:
    """A curve through all points, or through the means of POINTS groups of them."""
    if len(x) <= POINTS:
        return Curve(name, np.asarray(x), np.asarray(y), None, None, colour, dashed)
    xs, ys = (np.array_split(np.asarray(values, np.float64), POINTS) for values in (x, y))
    mean, low, high = (np.array([each(group) for group in ys]) for each in (np.mean, np.min, np.max))
    return Curve(name, np.array([group.mean() for group in xs]), mean, low, high, colour, dashed)


def draw(title: str, x_label: str, curves: Sequence[Curve], top: float | None = None) -> str:
    """An SVG element with placeholder colours; pass it to `standalone` or `inline`. top: the end of the y axis."""
    import matplotlib  # imported here because it takes a third of a second
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 2.9), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        axes.set_xlabel(x_label)
        for each in curves:
            _add(axes, each)
        axes.set_ylim(top=top)
        if len(points := {float(x) for each in curves for x in each.x}) == 1:
            axes.set_xticks([*points])
        if len(curves) > 1:
            figure.legend(loc="outside lower left", ncols=2)
        return _svg(figure, title)


def heat_map(title: str, names: Sequence[str], counts: np.ndarray) -> str:
    """An SVG element as of `draw`: a square of counts, each row shaded by its share of the row's sum."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    places = np.arange(len(names)) + 0.5
    with matplotlib.rc_context(STYLE | {"axes.grid": False, "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the page's fonts have it
        figure = Figure(figsize=(4.8, 4.8), layout="constrained")
        axes = figure.add_subplot(xlim=(0, len(names)), ylim=(len(names), 0), aspect="equal")
        axes.set(title=title, xlabel="predicted", ylabel="true")
        axes.set_xticks(places, names, rotation=90)
        axes.set_yticks(places, names)
        for (row, column), share in np.ndenumerate(shares):
            if share:
                axes.add_patch(Rectangle((column, row), 1, 1, facecolor=KEYS["curve-0"], alpha=share, linewidth=0))
                axes.text(column + 0.5, row + 0.5, f"{counts[row, column]}", ha="center", va="center", fontsize=6)
        return _svg(figure, title)


def standalone(svg: str) -> str:
    """The content of an SVG file: light colours on white."""
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    paper = f'<rect width="100%" height="100%" fill="{LIGHT["paper"]}"/>'
    return _fill_colours(re.sub(r"(<svg [^>]*>)", rf"\1{paper}", svg, count=1), LIGHT)


def inline(svg: str) -> str:
    """An SVG element for a page that defines the CSS variables --ink, --faint, --rule and --curve-N."""
    return _fill_colours(svg, {name: f"var(--{name})" for name in LIGHT})


def _add(axes: "Axes", curve: Curve) -> None:
    colour = KEYS[f"curve-{curve.colour % CURVES}"]
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    marker = "o" if len(curve.x) == 1 or (len(curve.x) <= MARKED and not curve.dashed) else ""
    style = (0, (4, 2)) if curve.dashed else "-"
    options: dict[str, Any] = {"marker": marker, "linestyle": style, "clip_on": False}
    if curve.dashed and marker:  # a point has no dashes: an empty one stands for them
        options["markerfacecolor"] = "none"
    axes.plot(curve.x, curve.y, color=colour, label=curve.name, **options)


def _svg(figure: "Figure", title: str) -> str:
    """The figure without prolog, metadata, fixed size, and ids that would be repeated on a page of several plots."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' id="[a-z]\w*?_\d+"| id="matplotlib\.\w+"', "", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, 'DejaVu Sans', sans-serif", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None, "matplotlib writes one"
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img" aria-label="{title}">'
    return re.sub(r"<svg [^>]*>", head, svg, count=1)


def _fill_colours(svg: str, colours: Mapping[str, str]) -> str:
    for name, key in KEYS.items():
        svg = svg.replace(key, colours[name])
    return svg
