"""`--task analyse`: the paper's feature-collapse analysis, from any checkpoint, an encoder alone included.

A block expands its C channels to 4C, and in ConvNeXt V1 most of these end up dead or alike. The mean
cosine distance between them measures this per block, on whole images: after GELU ("act") and, in
V2, after GRN ("grn").
"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import backends
import spec
from backends.protocol import Backend
from spec.console import one_line
from train.config import Config
from train.data.pixels import normalise
from train.data.sources import Source
from train.data.supervised import eval_crop
from train.report import plots
from train.tasks import weights
from train.tasks.accuracy import crop_pct
from train.tasks.images import open_images, read_images
from train.tasks.output import make_output_dir

OUTPUTS = {"act": "after GELU", "grn": "after GRN"}
"""Step of a block whose output is analysed -> its name on the plot; V1 has no GRN."""

ROUNDING = float(np.finfo(np.float32).eps)
"""A channel whose norm is below this fraction of the largest holds only rounding errors."""


class Row(NamedTuple):
    """Mean and standard deviation over the images of the distance at one output of one model."""

    checkpoint: str
    layer: str
    output: str
    mean: float
    std: float


def cosine_distance(features: np.ndarray) -> float:
    """Mean over all pairs of channels of (1 - cos(X_i, X_j)) / 2, where X_i are the H W values of channel i.

    features (H, W, C). Equal channels give 0, orthogonal ones (1 - 1 / C) / 2. Dead channels
    have no direction; they count as equal to each other and orthogonal to the rest. The sum over
    pairs is the squared length of the sum of the unit vectors.
    """
    vectors = features.reshape(-1, features.shape[-1]).astype(np.float64)
    norms = np.linalg.norm(vectors, axis=0)
    alive = norms > ROUNDING * norms.max()
    together = (vectors[:, alive] / norms[alive]).sum(1)
    dead = len(norms) - alive.sum()
    return float(1 - (together @ together + dead**2) / len(norms) ** 2) / 2


def run(config: Config, load: Callable[[str], Backend] = backends.load) -> None:
    """Write cosine_distance.csv and cosine_distance.svg, one curve per checkpoint, to the output folder."""
    paths = [weights.path_of(config), *(config.inspect.against or ())]
    models, source = [_model(config, path) for path in paths], open_images(config)  # report all mistakes first
    backend, folder = load(config.run.backend), make_output_dir(config)
    found = (_rows(config, source, *each, backend) for each in zip(paths, models, strict=True))
    rows = [row for each in found for row in each]
    table = folder / "cosine_distance.csv"
    with table.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file, lineterminator="\n").writerows([Row._fields, *rows])
    (folder / "cosine_distance.svg").write_text(plots.standalone(_plot(paths, rows)), encoding="utf-8")
    print(f"written: {folder}/cosine_distance.csv and .svg")


def _model(config: Config, path: str) -> spec.Classifier:
    """The checkpoint's encoder under an unused head."""
    model = weights.load(path).model
    weights.check_flags(config, path, model)
    return spec.Classifier(model.encoder, num_classes=1)


def _rows(config: Config, source: Source, path: str, model: spec.Classifier, backend: Backend) -> Iterator[Row]:
    """The rows of one checkpoint, output by output."""
    module = backend.build(model, dtype=config.run.precision, device=config.run.device)
    backend.set_arrays(module, weights.first_arrays(model, config.run.seed, path))
    blocks = {name: dict(step.body) for name, step in model.steps if isinstance(step, spec.Residual)}
    found: dict[tuple[str, str], list[float]] = {
        (name, output): [] for output in OUTPUTS for name, body in blocks.items() if output in body
    }
    for image in read_images(config, source):  # one at a time: base has 300 MB of intermediates at 224 px
        cropped = eval_crop(image, config.data.image_size, crop_pct(config))
        pixels = normalise(cropped[None], config.data.mean, config.data.std)
        intermediates = backend.forward(module, pixels, intermediates=True)
        for (block, output), distances in found.items():
            distances.append(cosine_distance(intermediates[f"{block}.{output}"][0]))
    for (block, output), distances in found.items():
        yield Row(path, block, output, float(np.mean(distances)), float(np.std(distances)))
    print(f"{path}: {len(blocks)} blocks on {len(distances):,} images")


def _plot(paths: list[str], rows: list[Row]) -> str:
    """Distance over depth: one colour per checkpoint, dashed after GELU, whole after GRN."""
    names = [one_line(Path(path).name) for path in paths]
    if len(set(names)) < len(names):
        names = list(map(one_line, paths))
    curves = []
    for index, path in enumerate(paths):
        for output, label in OUTPUTS.items():
            own = [row for row in rows if (row.checkpoint, row.output) == (path, output)]
            if not own:
                continue
            depth = np.linspace(0, 1, len(own)) if len(own) > 1 else np.array([0.0])
            mean, std = (np.array([getattr(row, name) for row in own]) for name in ("mean", "std"))
            name = f"{names[index]}, {label}" if len(paths) > 1 else label
            curves.append(plots.Curve(name, depth, mean, mean - std, mean + std, index, dashed=output == "act"))
    return plots.draw("Cosine distance between channels", "depth, first block to last", curves)
