"""`twinnext stats DATA`: statistics of each channel of a data set, and the flags that describe its images to a run."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from spec.console import Parser, escape_unprintable, fail, table
from train.config import cli
from train.config.config import FLAGS, Config, format_value, quoted
from train.data.classes import describe
from train.data.decode import BrokenImage
from train.data.feed import read, read_with_mask
from train.data.names import printable
from train.data.no_data import split
from train.data.reading import KINDS, read_options, refuse_unused
from train.data.sources import Source, open_source
from train.data.values import Values
from train.errors import TrainError, missing_package

READ = ("in_chans", "max_image_pixels", *KINDS)
"""The flags of a run that say how its images are read."""

IMAGES = 1000  # images to use by default
SAMPLED = 1024  # pixels of each image that the quantiles are computed from
QUANTILES = (1, 25, 50, 75, 99)  # per cent


class Statistics(NamedTuple):
    """Of each channel, (C,) or (quantiles, C)."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    quantiles: np.ndarray


def main(argv: Sequence[str] | None = None) -> int:
    """Print the statistics of a data set; return the exit status, 2 after an error."""
    escape_unprintable()
    given = vars(_parser().parse_args(argv))
    try:
        for line in report(given.pop("data"), given):
            print(line)
    except ModuleNotFoundError as error:
        return fail("twinnext stats", missing_package(error))
    except TrainError as error:
        return fail("twinnext stats", error)
    return 0


def report(path: str, given: dict[str, Any]) -> Iterator[str]:
    """The lines of the answer. given: the flags of READ and num_images that the user gave."""
    config = Config.from_flags(**{"num_images": IMAGES, "mean": (0.0,), "std": (1.0,), **given})
    source = open_source(path, "train", "DATA", read_options(config.data))
    refuse_unused(config.data, source.reading)
    yield describe(source)
    values, count, broken = source.reading.values, min(config.inspect.num_images, len(source)), list[str]()
    chosen = np.linspace(0, len(source), count, endpoint=False).astype(int)
    (channels, _), *others = [(given["in_chans"], count)] if "in_chans" in given else _channels(source, chosen)
    for other, images in others:
        yield f"note: {images:,} of {count:,} images have {other} channels, not {channels}, which --in_chans changes"
    found = measure(_images(source, chosen, channels, broken))
    yield from (f"skipped: {line}" for line in broken)
    yield f"{count - len(broken):,} of them with {channels} channels; values: {values}"
    yield _table(found, values)
    yield f"normalised as {values.normalised()} by these flags of twinnext train:"
    yield from _flags(found, {**given, "in_chans": channels})


def measure(images: Iterator[np.ndarray]) -> Statistics:
    """The statistics over images (..., C), in float64; the quantiles over SAMPLED pixels of each."""
    count, sums, squares, lows, highs, sampled = 0, 0.0, 0.0, [], [], []
    for image in images:
        pixels = image.reshape(-1, image.shape[-1]).astype(np.float64)
        if not count:
            origin = pixels.mean(0)  # a variance around it is no difference of large numbers
        count, pixels = count + len(pixels), pixels - origin
        sums, squares = sums + pixels.sum(0), squares + (pixels**2).sum(0)
        lows.append(pixels.min(0))
        highs.append(pixels.max(0))
        sampled.append(pixels[np.linspace(0, len(pixels), min(SAMPLED, len(pixels)), endpoint=False).astype(int)])
    mean = sums / count
    low, high, quantiles = np.min(lows, 0), np.max(highs, 0), np.percentile(np.concatenate(sampled), QUANTILES, 0)
    std = np.where(high > low, np.sqrt(squares / count - mean**2), 0)
    return Statistics(low + origin, high + origin, mean + origin, std, quantiles + origin)


def _images(source: Source, chosen: np.ndarray, channels: int, broken: list[str]) -> Iterator[np.ndarray]:
    """The pixels of each image that have data, (..., C) in the unit of --mean and --std.

    Adds a line to broken for each image that cannot be read; TrainError if none can.
    """
    for index in chosen.tolist():
        try:
            image, no_data = split(read_with_mask(source, index, channels)[0], channels)
            pixels = image if no_data is None else image[no_data == 0]
            if not pixels.size:
                raise BrokenImage(f"{printable(source.name(index))}: its mask leaves no pixel with data")
            yield pixels / 255 if pixels.dtype == np.uint8 else pixels
        except BrokenImage as error:
            broken.append(str(error))
    if len(broken) == len(chosen):
        raise TrainError(f"none of {len(chosen):,} images can be read; {broken[0]}")


def _channels(source: Source, chosen: np.ndarray) -> list[tuple[int, int]]:
    """Each number of channels and how many of the images have it, the most frequent first; 3 if none can be read."""
    counts = Counter[int]()
    for index in chosen.tolist():
        with suppress(BrokenImage):
            counts[read(source, index, None)[0].shape[-1]] += 1
    return counts.most_common() or [(3, 0)]


def _table(found: Statistics, values: Values) -> str:
    """A row per channel, of values as they are stored."""
    columns = np.stack([found.low, *found.quantiles, found.high, found.mean, found.std]) * (values.top or 1)
    head = ("channel", "min", *(f"{each} %" for each in QUANTILES), "max", "mean", "std")
    rows = [(str(channel), *(f"{value:.5g}" for value in column)) for channel, column in enumerate(columns.T)]
    return table([head, *rows], ">", heading=True)


def _flags(found: Statistics, given: Mapping[str, Any]) -> Iterator[str]:
    """The flags to paste, and a note about channels without contrast."""
    std = np.where(found.std > 0, found.std, 1)
    numbers = {"mean": tuple(map(_number, found.mean)), "std": tuple(map(_number, std))}
    words = [f"--{name} {quoted(value)}" for name, value in {**given, **numbers}.items() if name != "num_images"]
    yield " ".join(words)
    flat = np.flatnonzero(found.std == 0).tolist()
    if flat:
        yield f"note: one value only in channels {format_value(tuple(flat))}; their std of 0 is replaced by 1"


def _number(value: float) -> str:
    """Six digits without an exponent, which argparse takes for a flag after a minus sign."""
    return np.format_float_positional(value, 6, fractional=False, trim="-")


def _parser() -> argparse.ArgumentParser:
    parser = Parser("twinnext stats", description=__doc__, argument_default=argparse.SUPPRESS)
    parser.add_argument("data", metavar="DATA", help="the images, as for --data_path of twinnext train")
    for name in ("num_images", *READ):
        parser.add_argument(f"--{name}", **cli.argument(FLAGS[name], IMAGES if name == "num_images" else None))
    return parser


if __name__ == "__main__":
    sys.exit(main())
