"""The log of a run: metrics.jsonl, TensorBoard events, pictures, and progress on the terminal."""

import io
import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm

from spec.console import one_line
from train.data.supervised import Coverage
from train.errors import TrainError
from train.logs.append_file import AppendFile
from train.logs.tracking import Tracker

BAR = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}, {remaining} left"
MUCH = 0.2  # fraction of the time spent waiting for data above which the log line says so


class SilentLog:
    """The log of ranks other than 0: writes nothing, prints only what this rank alone has seen."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """No-op: rank 0 logs."""

    def say(self, line: str) -> None:
        """Print a line, with the rank."""
        with suppress(OSError):
            print(f"[{self.rank}] {one_line(line)}", flush=True)

    def advance(self) -> None:
        """No-op: rank 0 logs."""

    def metrics(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """No-op: rank 0 logs."""

    def scores(self, step: int, epoch: float, scores: Mapping[str, float], coverage: Coverage) -> None:
        """No-op: rank 0 logs."""


class RunLog:
    """The log of rank 0, from update `start` on; lines that an interrupted run wrote after it are dropped.

    When the disk is full or gone, the run continues: one line says so, and what could not be written
    is kept in memory until it can.
    """

    def __init__(self, run_dir: Path, events: Path, start: int, total: int, tracker: Tracker | None = None) -> None:
        """events: folder of the TensorBoard events; total: the last update. TrainError if a file cannot be written."""
        self.start, self.total, self.began = start, total, time.perf_counter()
        self.pictures, self.tracker = run_dir / "pictures", tracker
        try:
            self.file = AppendFile(_truncate(run_dir / "metrics.jsonl", start), self.say)
            self.events = _Events(events, start, self.say)
        except OSError as error:
            raise TrainError(f"{error.filename}: cannot be written: {error.strerror}") from None
        quiet = not sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=start, bar_format=BAR, disable=quiet, dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.bar.close()
        self.file.close()
        self.events.file.close()
        if self.tracker:
            self.tracker.close(failed=error is not None)

    def say(self, line: str) -> None:
        """Print a line above the progress bar. A closed terminal is ignored."""
        with suppress(OSError):
            tqdm.write(one_line(line))
            sys.stdout.flush()

    def advance(self) -> None:
        """Advance the progress bar by one update."""
        self.bar.update()

    def metrics(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Log metrics of training: a line of metrics.jsonl, TensorBoard scalars, a line on the terminal."""
        self._write("train", step, epoch, values)
        shown = f"loss {values['loss']:.4f}, lr {values['lr']:.2e}, {values['images_per_s']:,.0f} images/s"
        if values["data_wait"] > MUCH:
            shown += f", {values['data_wait']:.0%} of the time waiting for images"
        if not self.bar.disable:
            self.bar.set_postfix_str(shown)
            return
        left = (time.perf_counter() - self.began) / (step - self.start) * (self.total - step)
        self.say(f"step {step:,}/{self.total:,}, epoch {epoch:.1f}: {shown}, {timedelta(seconds=math.ceil(left))} left")

    def scores(self, step: int, epoch: float, scores: Mapping[str, float], coverage: Coverage) -> None:
        """Log the scores of an evaluation in the same places."""
        self._write("val", step, epoch, {**scores, "eval_skipped": coverage.skipped})
        self.say(f"step {step:,}, epoch {epoch:.1f}: {format_scores(scores)}{coverage}")

    def picture(self, step: int, image: Image.Image) -> Path:
        """Save a picture of reconstructions, also to TensorBoard; return its file."""
        file = self.pictures / f"step-{step:08d}.png"
        content = io.BytesIO()
        image.save(content, "PNG")
        try:
            self.pictures.mkdir(exist_ok=True)
            file.write_bytes(content.getvalue())
        except OSError as error:
            self.say(f"{file}: cannot be written: {error.strerror}")
        size = {"width": image.width, "height": image.height, "colorspace": len(image.getbands())}
        shown = Summary.Image(**size, encoded_image_string=content.getvalue())
        self.events.add(step=step, summary=Summary(value=[Summary.Value(tag="reconstruction", image=shown)]))
        return file

    def _write(self, group: str, step: int, epoch: float, values: Mapping[str, float]) -> None:
        line = {"step": step, "epoch": round(epoch, 4), "time": round(time.time(), 3), **values}
        self.file.write((json.dumps(line) + "\n").encode())
        named = {f"{group}/{name}": value for name, value in values.items()}
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in named.items()]
        self.events.add(step=step, summary=Summary(value=scalars))
        if self.tracker:
            self.tracker.log(step, named)


def format_scores(scores: Mapping[str, float]) -> str:
    """The scores in one line, e.g. "acc1 76.70, val_loss 1.0312"."""
    return ", ".join(
        f"{name} {value:.4f}" if "loss" in name else f"{name} {value:.2f}" for name, value in scores.items()
    )


class _Events:
    """A TensorBoard event file. TensorBoard's own writer is not used because a full disk kills its thread."""

    def __init__(self, folder: Path, start: int, say: Callable[[str], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = AppendFile(
            folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}", say
        )
        self.add(file_version="brain.Event:2")
        self.add(step=start + 1, session_log=SessionLog(status=SessionLog.START))  # hides later steps of older files

    def add(self, **fields: Any) -> None:
        content = io.BytesIO()
        RecordWriter(content).write(Event(wall_time=time.time(), **fields).SerializeToString())
        self.file.write(content.getvalue())


def _truncate(file: Path, start: int) -> Path:
    """Truncate metrics.jsonl after step `start` or before the first damaged line; return it."""
    if file.exists():
        size = 0
        for line in file.read_bytes().splitlines(keepends=True):
            if not _is_kept(line, start):
                break
            size += len(line)
        os.truncate(file, size)
    return file


def _is_kept(line: bytes, start: int) -> bool:
    try:
        return line.endswith(b"\n") and json.loads(line)["step"] <= start
    except (ValueError, KeyError, TypeError):
        return False
