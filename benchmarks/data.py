"""JPEG to batch: images per second, by threads and processes, against plain Pillow in the same run."""

import io
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

import spec
from backends.protocol import Batch
from backends.rng import Stream
from benchmarks import roofline
from benchmarks.peaks import PUBLISHED
from benchmarks.photographs import CLASSES, Photographs
from spec import console
from train.data.feed import Feed, permutation
from train.data.masks import random_masks
from train.data.mixing import Mix, blend_targets, soft_targets
from train.data.pipeline import prefetch
from train.data.pixels import Erase
from train.data.randaugment import RandAugment
from train.data.supervised import CropAndAugment, SupervisedFeed
from train.data.transforms import CropAndFlip, Draws, crop_box

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = (224, 224)
GROUP = 32
SHARES = (0.1, 0.25, 0.5)
WORKERS = (("thread", 1), ("thread", 2), ("process", 1), ("process", 2))

Make = Callable[[int], tuple[Batch, list[str]]]


def masks(positions: np.ndarray, images: np.ndarray, no_data: np.ndarray | None = None) -> Batch:
    """The masks of pre-training."""
    return {"mask": random_masks(0, positions, (7, 7), 19)}


def pretraining(source: Photographs, batch_size: int, scaled: bool = False) -> Feed:
    """The feed of a pre-training run: crop, flip, mask; bytes."""
    crop = CropAndFlip(SIZE, (0.2, 1.0), 0.5, scaled)
    return Feed(source, 0, 3, batch_size, len(source), crop, masks)


def finetuning(source: Photographs, batch_size: int, scaled: bool = False) -> SupervisedFeed:
    """The feed of the published fine-tuning of base: crop, flip, RandAugment, erasing, mixup and cutmix."""
    policy = RandAugment.parse("rand-m9-mstd0.5-inc1", MEAN)
    augment = CropAndAugment(CropAndFlip(SIZE, (0.08, 1.0), 0.5, scaled), policy)
    erase, mix = Erase(0, 0.25), Mix(0, GROUP, 0.8, 1.0)
    return SupervisedFeed(
        source, 0, 3, batch_size, len(source), augment, CLASSES, 0.1, (0.0, 0.1), MEAN, STD, erase, mix
    )


@dataclass(frozen=True)
class Plain:
    """The baseline: the batches of a feed, normalised, made by Pillow and straightforward numpy."""

    feed: Feed | SupervisedFeed

    def __call__(self, index: int) -> tuple[Batch, list[str]]:
        feed, positions = self.feed, self.feed.positions(index)
        images, labels = zip(*(self._sample(position) for position in positions.tolist()), strict=True)
        pixels = np.stack(images)
        if not isinstance(feed, SupervisedFeed) or feed.mix is None:
            return {"images": pixels, **masks(positions, pixels)}, []
        targets = soft_targets(np.array(labels), feed.classes, feed.smoothing)
        mixed, blends = pixels.copy(), feed.mix.blends(positions, *SIZE)
        for rows, (share, box) in blends:
            partners = pixels[rows][::-1]
            if box is None:
                mixed[rows] = pixels[rows] * np.float32(share) + partners * np.float32(1 - share)
            else:
                mixed[rows, box[0] : box[2], box[1] : box[3]] = partners[:, box[0] : box[2], box[1] : box[3]]
        reverse = feed.mix.partners(positions) - positions[0]
        return {"images": mixed, "targets": blend_targets(targets, targets[reverse], blends)}, []

    def _sample(self, position: int) -> tuple[np.ndarray, int]:
        feed = self.feed
        epoch, place = divmod(position, feed.epoch_size)
        data, label, _ = feed.source[int(permutation(feed.seed, epoch, len(feed.source))[place])]
        assert isinstance(data, bytes)
        draws = Draws(feed.seed, Stream.AUGMENT, position)
        pixels = self._augmented(Image.open(io.BytesIO(data)).convert("RGB"), draws)
        normalised = (pixels.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        if isinstance(feed, SupervisedFeed) and feed.erase:
            feed.erase(normalised, position)
        return normalised, label

    def _augmented(self, image: Image.Image, draws: Draws) -> np.ndarray:
        augment = self.feed.augment
        crop = augment.crop if isinstance(augment, CropAndAugment) else augment
        assert isinstance(crop, CropAndFlip)
        top, left, height, width = crop_box(image.height, image.width, crop.scale, draws)
        image = image.crop((left, top, left + width, top + height)).resize(SIZE[::-1], Image.Resampling.BICUBIC)
        if draws.uniform(0, 1) < crop.hflip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        policy = augment.policy if isinstance(augment, CropAndAugment) else None
        return policy(np.asarray(image), draws) if policy else np.asarray(image)


@dataclass(frozen=True)
class Speed:
    """Images per second, per round, of one way to make the batches of a task."""

    task: str
    what: str
    kind: str
    workers: int
    rates: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.rates)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"images_per_s": self.median}


def measure(source: Photographs, batch_size: int, batches: int, rounds: int) -> list[Speed]:
    """Every way for both tasks; within a round they take turns."""
    ways: list[tuple[Speed, Make]] = []
    for task, feed in (("pre-training", pretraining), ("fine-tuning", finetuning)):
        ways.append((Speed(task, "plain Pillow", "thread", 1), Plain(feed(source, batch_size))))
        ways += [(Speed(task, "twinnext", *way), feed(source, batch_size)) for way in WORKERS]
        ways.append((Speed(task, "--decode scaled", "thread", 1), feed(source, batch_size, scaled=True)))
    for _ in range(rounds):
        for speed, make in ways:
            speed.rates.append(rate(make, speed.kind, speed.workers, batch_size, batches))
    return [speed for speed, _ in ways]


def rate(make: Make, kind: str, workers: int, batch_size: int, batches: int) -> float:
    """Images per second, after a warm-up that uses up what was prefetched."""
    with closing(prefetch(make, 0, 10**6, workers, kind)) as made:
        for _ in islice(made, 2 * workers):
            pass
        started = time.perf_counter()
        for _ in islice(made, batches * workers):
            pass
        return batch_size * batches * workers / (time.perf_counter() - started)


def table(speeds: list[Speed], source: Photographs) -> str:
    """One row per way; then the number of cores that keep a GPU busy."""
    kilobytes = sum(map(len, source.files)) / len(source) / 1e3
    title = f"{len(source)} JPEGs of {kilobytes:.0f} kB on average; {len(speeds[0].rates)} rounds"
    rows = [["task, batches by", "workers", "images/s", "least", "most", "vs plain"]]
    plain = {speed.task: speed.median for speed in speeds if speed.what == "plain Pillow"}
    for speed in speeds:
        rates = [f"{rate:.0f}" for rate in (speed.median, min(speed.rates), max(speed.rates))]
        name, workers = f"{speed.task}, {speed.what}", f"{speed.workers} {speed.kind}"
        rows.append([name, workers, *rates, f"{speed.median / plain[speed.task]:.2f}x"])
    return "\n".join([title, "", console.table(rows, "<<>"), "", *needs(speeds)])


def needs(speeds: list[Speed], model: str = "convnextv2_base", batch_size: int = 256) -> list[str]:
    """The number of these cores that feed a GPU training `model` in bfloat16 at some shares of its roofline."""
    lines = []
    models: dict[str, spec.Classifier | spec.FCMAE] = {
        "pre-training": spec.fcmae(model),
        "fine-tuning": spec.classifier(model, num_classes=CLASSES),
    }
    for task, built in models.items():
        core = next(s.median for s in speeds if (s.task, s.what, s.kind, s.workers) == (task, "twinnext", "thread", 1))
        found = roofline.bounds(built, batch_size, dtype="bfloat16")
        for name in ("h100", "h200"):
            peak = PUBLISHED[name]
            most = batch_size / roofline.limit(found, peak.tflops, peak.gbps)
            cores = ", ".join(f"{share * most / core:.0f} for {share:.0%}" for share in SHARES)
            lines.append(f"{task} of {model} on one {name}: at most {most:,.0f} images/s; cores needed: {cores}")
    return lines
