"""`--task embed`: the features of every image of a source, in an npz or parquet file.

They are collected in the folder FILE.part, batch by batch. The same command continues there after it was
killed, and the file is the same, byte for byte.
"""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import backends
import spec
from backends.protocol import Arrays, Backend
from convert import files
from train.checkpoints.lock import locked
from train.config import Config
from train.config.config import format_value
from train.data.classes import describe
from train.data.sources import Source
from train.errors import TrainError, writing
from train.tasks.accuracy import eval_batches
from train.tasks.evaluate import untrained
from train.tasks.feature_files import WRITERS, writer_of
from train.tasks.features import encoder, stages_encoder
from train.tasks.growing import Column, Table
from train.tasks.images import open_images, refuse_unreadable
from train.tasks.inference import one_process, outputs
from train.tasks.output import output_file
from train.tasks.weights import path_of

FREE = ("num_workers", "compilation_cache", "output")
"""Flags that may change before a killed command continues: they do not change the features."""


def run(config: Config, load: Callable[[str], Backend] = backends.load) -> int:
    """Write the features of each image with its number, name and label; return the exit status.

    It is 1 if some image cannot be read: it has no row, and a line is printed. TrainError if none can.
    """
    path, file = path_of(config), output_file(config, *WRITERS)
    model, arrays = encoder(config, 0) if config.inspect.stages is None else stages_encoder(config)
    columns, write = _columns(config, model), writer_of(file.suffix)
    source = open_images(config)
    print(f"{describe(source)}; {spec.count(model):,} parameters from {path}")
    folder = file.with_name(f"{file.name}.part")
    with writing(f"--output {file}"):
        folder.mkdir(exist_ok=True)
        with locked(folder, print, "--output"):
            _check_same(config, folder, arrays, source)
            table = Table(folder, columns)
            _fill(config, load, table, model, arrays, source)
            refuse_unreadable(config, len(source), len(source) - table.rows)
            with files.atomic(file) as aside:
                write(aside, table, source)
            shutil.rmtree(folder)
    skipped = len(source) - table.rows
    print(f"written: {file}, {table.rows:,} images" + f" ({skipped:,} could not be read)" * bool(skipped))
    return 1 if skipped else 0


def _columns(config: Config, model: spec.Classifier | spec.Backbone) -> dict[str, Column]:
    """The outputs to keep; SpecError for a stage that is not there."""
    dtype = np.dtype(np.float64 if config.run.precision == "float64" else np.float32)
    height, width = config.data.image_size
    if config.inspect.stages is None:
        return {"features": Column((model.encoder.dims[-1],), dtype)}
    infos = model.encoder.feature_info(sorted(config.inspect.stages))
    shapes = {f"stage{i.stage}": (height // i.stride, width // i.stride, i.channels) for i in infos}
    return {name: Column(shape, dtype) for name, shape in shapes.items()}


def _check_same(config: Config, folder: Path, arrays: Arrays, source: Source) -> None:
    """TrainError if the folder holds other features than these; else note in it what they are of."""
    digest = hashlib.sha256()
    for array in arrays.values():
        digest.update(array.tobytes())
    flags = {name: format_value(value) for name, value in config.used_flags().items() if name not in FREE}
    own = {**flags, "weights": digest.hexdigest(), "data": source.fingerprint, "images": len(source)}
    note = folder / "of.json"
    if not note.exists():
        files.write_text(note, json.dumps(own, indent=1))
    theirs: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
    for name, value in own.items():
        if theirs.get(name) != value:
            what = f"--{name}" if name in flags else name
            raise TrainError(
                f"--output {config.run.output}: {folder} was begun with other {what} ({theirs.get(name)}, now {value});"
                " give the same to continue, or delete the folder"
            )


def _fill(
    config: Config,
    load: Callable[[str], Backend],
    table: Table,
    model: spec.Classifier | spec.Backbone,
    arrays: Arrays,
    source: Source,
) -> None:
    """Append the rows that are missing, batch by batch; the last batch of a killed process is computed again."""
    backend, cluster = one_process(config, load)
    trainer = untrained(config, backend, cluster, model, arrays, {})
    batches = eval_batches(config, source, tuple(range(len(source.classes))))
    size, index = batches.batch_size * cluster.devices, np.array(table.read("index"))
    start = int(index[-1]) // size if len(index) else 0
    table.truncate(int(np.searchsorted(index, start * size)))
    if start:
        print(f"continued from image {start * size:,}")
    bar = tqdm(total=len(source), initial=start * size, unit=" images", disable=not sys.stderr.isatty())
    began, first = 0.0, 0
    with bar:
        for found in outputs(trainer, cluster, batches, config.data.num_workers, start):
            for line in found.broken:
                tqdm.write(f"skipped: {line}")
            table.append({**found.values, "index": found.numbers})
            bar.update(len(found.numbers) + len(found.broken))
            began, first = (began, first) if began else (time.perf_counter(), table.rows)
    took = time.perf_counter() - began
    if table.rows > first:
        print(f"{(table.rows - first) / took:,.1f} images/s after the first batch")
