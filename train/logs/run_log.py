"""What a run writes down: metrics.jsonl, TensorBoard events, pictures, and its progress on the terminal."""

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
from types import TracebackType
from typing import Any, Self

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm

from train.errors import TrainError
from train.logs.append_file import Appended
from train.logs.tracking import Tracker

BAR = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}, {remaining} left"
MUCH = 0.2
"""Share of the time spent waiting for batches that is worth a word."""


class Silent:
    """The log of the processes that leave speaking and writing to another: it says what they alone have seen."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def say(self, line: str) -> None:
        """A line for the user, of this process."""
        with suppress(OSError):
            print(f"[{self.rank}] {line}", flush=True)

    def update(self) -> None:
        """One more update is done."""

    def record(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Written elsewhere."""

    def judged(self, step: int, epoch: float, scores: Mapping[str, float]) -> None:
        """Written elsewhere."""


class RunLog:
    """The log of a run from update `start` on; what an interrupted run wrote past it is dropped.

    A disk that is full or gone costs lines and no run: what cannot be written is said once, kept
    in memory and written when there is room again.
    """

    def __init__(self, run_dir: Path, events: Path, start: int, total: int, tracker: Tracker | None = None) -> None:
        self.start, self.total, self.began = start, total, time.perf_counter()
        self.pictures, self.tracker = run_dir / "pictures", tracker
        try:
            self.metrics = Appended(_cut(run_dir / "metrics.jsonl", start), self.say)
            self.events = _Events(events, start, self.say)
        except OSError as error:
            raise TrainError(f"{error.filename}: cannot be written: {error.strerror}") from None
        quiet = not sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=start, bar_format=BAR, disable=quiet, dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.close()
        self.metrics.close()
        self.events.file.close()
        if self.tracker:
            self.tracker.close(failed=error is not None)

    def say(self, line: str) -> None:
        """A line for the user, above the progress bar; lost where nobody takes it."""
        with suppress(OSError):
            tqdm.write(line)
            sys.stdout.flush()

    def update(self) -> None:
        """One more update is done."""
        self.bar.update()

    def record(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl, the same as TensorBoard scalars, and on the terminal."""
        self._write("train", step, epoch, values)
        shown = f"loss {values['loss']:.4f}, lr {values['lr']:.2e}, {values['images_per_s']:,.0f} images/s"
        if values["data_wait"] > MUCH:
            shown += f", {values['data_wait']:.0%} of the time waiting for images"
        if not self.bar.disable:
            self.bar.set_postfix_str(shown)
            return
        left = (time.perf_counter() - self.began) / (step - self.start) * (self.total - step)
        self.say(f"step {step:,}/{self.total:,}, epoch {epoch:.1f}: {shown}, {timedelta(seconds=math.ceil(left))} left")

    def judged(self, step: int, epoch: float, scores: Mapping[str, float]) -> None:
        """The scores of an evaluation: a line of metrics.jsonl, TensorBoard scalars, and a line on the terminal."""
        self._write("val", step, epoch, scores)
        self.say(f"step {step:,}, epoch {epoch:.1f}: {told(scores)}")

    def picture(self, step: int, image: Image.Image) -> Path:
        """Keep a reconstruction; returns its file."""
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
        self.metrics.write((json.dumps(line) + "\n").encode())
        named = {f"{group}/{name}": value for name, value in values.items()}
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in named.items()]
        self.events.add(step=step, summary=Summary(value=scalars))
        if self.tracker:
            self.tracker.log(step, named)


def told(scores: Mapping[str, float]) -> str:
    """Scores in a line."""
    return ", ".join(
        f"{name} {value:.4f}" if "loss" in name else f"{name} {value:.2f}" for name, value in scores.items()
    )


class _Events:
    """A file of TensorBoard events, written by us: the thread of TensorBoard's own writer dies of a full disk."""

    def __init__(self, folder: Path, start: int, say: Callable[[str], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = Appended(
            folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}", say
        )
        self.add(file_version="brain.Event:2")
        self.add(step=start + 1, session_log=SessionLog(status=SessionLog.START))  # drop what is there

    def add(self, **fields: Any) -> None:
        content = io.BytesIO()
        RecordWriter(content).write(Event(wall_time=time.time(), **fields).SerializeToString())
        self.file.write(content.getvalue())


def _cut(file: Path, start: int) -> Path:
    """The metrics file without the lines past update `start`, which this run writes anew, nor what follows damage."""
    if file.exists():
        size = 0
        for line in file.read_bytes().splitlines(keepends=True):
            if not _whole(line, start):
                break
            size += len(line)
        os.truncate(file, size)
    return file


def _whole(line: bytes, start: int) -> bool:
    try:
        return line.endswith(b"\n") and json.loads(line)["step"] <= start
    except (ValueError, KeyError, TypeError):
        return False
