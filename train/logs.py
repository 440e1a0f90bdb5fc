"""What a run writes down: metrics.jsonl, TensorBoard events, pictures, and its progress on the terminal."""

import json
import math
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tqdm import tqdm

from train.judge import told

BAR = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}, {remaining} left"


class Meter:
    """Means over the updates since it was last read; reading waits for the device."""

    def __init__(self) -> None:
        self.restart()

    def add(self, outcome: Mapping[str, Any], images: int, skipped: int) -> None:
        self.outcomes.append(outcome)
        self.images += images
        self.skipped += skipped

    def read(self) -> dict[str, float]:
        """loss, grad_norm, images_per_s, and how many broken images were skipped."""
        names = ("loss", "grad_norm")
        means = {name: float(np.mean([float(outcome[name]) for outcome in self.outcomes])) for name in names}
        rate = self.images / (time.perf_counter() - self.began)
        values = {**means, "images_per_s": rate, "skipped": self.skipped}
        self.restart()
        return values

    def restart(self) -> None:
        """Forget what was added, and begin to count time anew."""
        self.outcomes: list[Mapping[str, Any]] = []
        self.images = self.skipped = 0
        self.began = time.perf_counter()


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
        print(f"[{self.rank}] {line}", flush=True)

    def update(self) -> None:
        """One more update is done."""

    def record(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Written elsewhere."""

    def judged(self, step: int, epoch: float, scores: Mapping[str, float]) -> None:
        """Written elsewhere."""


class RunLog:
    """The log of a run from update `start` on; what an interrupted run wrote past it is dropped."""

    def __init__(self, run_dir: Path, events: Path, start: int, total: int) -> None:
        self.start, self.total, self.began = start, total, time.perf_counter()
        self.pictures = run_dir / "pictures"
        self.metrics = _truncated(run_dir / "metrics.jsonl", start).open("a", encoding="utf-8")
        self.events = EventFileWriter(str(events))
        restart = SessionLog(status=SessionLog.START)  # TensorBoard drops what it has from this step on
        self.events.add_event(Event(wall_time=time.time(), step=start + 1, session_log=restart))
        quiet = not sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=start, bar_format=BAR, disable=quiet, dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.close()
        self.metrics.close()
        self.events.close()

    def say(self, line: str) -> None:
        """A line for the user, above the progress bar."""
        tqdm.write(line)
        sys.stdout.flush()

    def update(self) -> None:
        """One more update is done."""
        self.bar.update()

    def record(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl, the same as TensorBoard scalars, and on the terminal."""
        self._write(step, epoch, values)
        self._event(step, [Summary.Value(tag=f"train/{name}", simple_value=value) for name, value in values.items()])
        shown = f"loss {values['loss']:.4f}, lr {values['lr']:.2e}, {values['images_per_s']:,.0f} images/s"
        if not self.bar.disable:
            self.bar.set_postfix_str(shown)
            return
        left = (time.perf_counter() - self.began) / (step - self.start) * (self.total - step)
        self.say(f"step {step:,}/{self.total:,}, epoch {epoch:.1f}: {shown}, {timedelta(seconds=math.ceil(left))} left")

    def judged(self, step: int, epoch: float, scores: Mapping[str, float]) -> None:
        """The scores of an evaluation: a line of metrics.jsonl, TensorBoard scalars, and a line on the terminal."""
        self._write(step, epoch, scores)
        self._event(step, [Summary.Value(tag=f"val/{name}", simple_value=value) for name, value in scores.items()])
        self.say(f"step {step:,}, epoch {epoch:.1f}: {told(scores)}")

    def picture(self, step: int, image: Image.Image) -> Path:
        """Keep a reconstruction; returns its file."""
        self.pictures.mkdir(exist_ok=True)
        file = self.pictures / f"step-{step:08d}.png"
        image.save(file)
        size = {"width": image.width, "height": image.height, "colorspace": len(image.getbands())}
        shown = Summary.Image(**size, encoded_image_string=file.read_bytes())
        self._event(step, [Summary.Value(tag="reconstruction", image=shown)])
        return file

    def _write(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        self.metrics.write(json.dumps({"step": step, "epoch": round(epoch, 4), **values}) + "\n")
        self.metrics.flush()

    def _event(self, step: int, values: list[Summary.Value]) -> None:
        self.events.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))


def _truncated(file: Path, start: int) -> Path:
    """The metrics file without the lines past update `start`, which this run writes anew."""
    if file.exists():
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= start]
        file.write_text("".join(kept), encoding="utf-8")
    return file
