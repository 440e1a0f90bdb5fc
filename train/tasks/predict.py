"""`--task predict`: the most probable classes of images, by a classifier in a checkpoint of any format."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

import backends
import spec
from backends.protocol import Backend
from convert import files
from train.config import Config
from train.data.classes import describe, names_of
from train.data.names import portable, printable
from train.errors import writing
from train.tasks import weights
from train.tasks.accuracy import eval_batches, top_classes
from train.tasks.evaluate import untrained
from train.tasks.images import open_images, refuse_unreadable
from train.tasks.inference import one_process, outputs
from train.tasks.output import output_file

COLUMNS = ("image", "rank", "class", "name", "probability")
"""Of a CSV file, which has a line per image and rank."""


class Guess(NamedTuple):
    """A class: its number, its name and its probability."""

    number: int
    name: str
    probability: float


Write = Callable[[str, Sequence[Guess]], None]


def run(config: Config, load: Callable[[str], Backend] = backends.load) -> int:
    """Print the five most probable classes of each image, and write them to --output; return the exit status.

    It is 1 if some image cannot be read, for which a line is printed; TrainError if none can.
    """
    path = weights.path_of(config)
    model, arrays, _, meta = weights.classifier(path, with_ema=False)
    weights.check_flags(config, path, model)
    file = output_file(config, ".csv", ".jsonl") if config.run.output else None
    source = open_images(config)
    names = names_of(meta, model.num_classes)
    backend, cluster = one_process(config, load)
    print(f"{describe(source)}; {spec.count(model):,} parameters from {path}")
    if names is None:
        print("note: the checkpoint has no class names; classes are numbers")
        names = tuple(map(str, range(model.num_classes)))
    trainer = untrained(config, backend, cluster, model, arrays, {})
    batches, broken = eval_batches(config, source, (0,) * len(source.classes)), 0
    with _writer(file) as write:
        for found in outputs(trainer, cluster, batches, config.data.num_workers):
            for line in found.broken:
                print(f"skipped: {line}")
            for number, guesses in zip(found.numbers.tolist(), best(found.values["logits"], names), strict=True):
                image = source.name(number)
                print(printable(f"{image}: {', '.join(f'{each.name} {each.probability:.3f}' for each in guesses)}"))
                write(portable(image), guesses)
            broken += len(found.broken)
        refuse_unreadable(config, len(source), broken)
    if file:
        print(f"written: {file}")
    return 1 if broken else 0


def best(logits: np.ndarray, names: Sequence[str]) -> Iterator[list[Guess]]:
    """The most probable classes of each row of logits (N, classes), best first; at most five."""
    logits = logits.astype(np.float64)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = weights / weights.sum(1, keepdims=True)
    for row, classes in zip(probabilities, top_classes(logits).tolist(), strict=True):
        yield [Guess(number, portable(names[number]), float(row[number])) for number in classes]


@contextmanager
def _writer(file: Path | None) -> Iterator[Write]:
    """A function that writes the classes of an image to a file, which appears when all are written."""
    if file is None:
        yield lambda image, guesses: None
        return
    with writing(f"--output {file}"), files.atomic(file) as aside, aside.open("w", encoding="utf-8", newline="") as out:
        lines = csv.writer(out, lineterminator="\n")

        def write_csv(image: str, guesses: Sequence[Guess]) -> None:
            lines.writerows((image, rank, *guess) for rank, guess in enumerate(guesses, 1))

        def write_json(image: str, guesses: Sequence[Guess]) -> None:
            top = [{"class": number, "name": name, "probability": value} for number, name, value in guesses]
            out.write(json.dumps({"image": image, "top": top}, ensure_ascii=False) + "\n")

        if file.suffix == ".csv":
            lines.writerow(COLUMNS)
        yield write_csv if file.suffix == ".csv" else write_json
