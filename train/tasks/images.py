"""The images of the tasks that inspect a checkpoint."""

import glob
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from train.config import Config
from train.data.decode import BrokenImage
from train.data.feed import read_with_mask
from train.data.folder import Folder
from train.data.kinds import kind
from train.data.reading import Reading, ReadOptions, check_data, probed, read_options
from train.data.sources import Item, Source, open_source
from train.data.tars import UNLABELLED
from train.errors import NoSplit, TrainError


class ImageFiles:
    """The images of files, of folders with all below them, and of patterns, in the order given; without labels.

    TrainError for a path that is not there, a pattern that matches nothing, and a folder without images.
    """

    classes = (UNLABELLED,)

    def __init__(self, places: Sequence[str], options: ReadOptions) -> None:
        self.files: list[str] = []
        left_out: list[str] = []
        for place in places:
            for path in _matches(place):
                self._add(path, left_out)
        self.labels = [0] * len(self.files)
        self.fingerprint = hashlib.sha256("\n".join(self.files).encode(errors="surrogateescape")).hexdigest()[:16]
        self.reading = probed(Reading(options, tuple(left_out)), self)

    def _add(self, path: str, left_out: list[str]) -> None:
        """A file, or the images of a folder."""
        if kind(Path(path)):
            raise TrainError(f"--images {path}: a data set, not an image; give it as --data_path")
        if not Path(path).is_dir():
            self.files.append(path)
            return
        try:
            folder = Folder(Path(path))
        except TrainError as error:
            raise TrainError(f"--images {error}") from None
        self.files += map(folder.name, range(len(folder)))
        left_out += folder.reading.left_out

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Item:
        return Path(self.files[index]).read_bytes(), 0, self.name(index)

    def name(self, index: int) -> str:
        """The path of an image."""
        return self.files[index]


def _matches(place: str) -> list[str]:
    """The path, if there is one, or those that match it as a pattern."""
    found = [place] if Path(place).exists() else sorted(glob.glob(place, recursive=True))
    if not found:
        raise TrainError(
            f"--images {place}: no {'file matches this pattern' if glob.has_magic(place) else 'such file'}"
        )
    return found


def open_images(config: Config) -> Source:
    """The images of --images, or of --data_path, the part of --split; TrainError if there is nothing to read.

    Prints what their values are.
    """
    places, options = config.inspect.images, read_options(config.data)
    for name in ("num_images", "split"):
        if places and name in config.given:
            raise TrainError(f"--{name}: is for images of --data_path; all of --images are used; leave it out")
    source = ImageFiles(places, options) if places else _open_part(config, options)
    print(check_data(config, source.reading))
    return source


def _open_part(config: Config, options: ReadOptions) -> Source:
    """The part of --data_path that --split names, or else what an evaluation reads."""
    path, split = config.data.data_path, config.inspect.split
    try:
        source = open_source(path, split or "val", options=options)
    except NoSplit:
        return open_source(path, "all", options=options)
    if not split:
        print(f"note: the validation part of {path}; --split train names that for training")
    return source


def read_images(config: Config, source: Source) -> Iterator[np.ndarray]:
    """Each image (H, W, C), uint8 or float32: all of --images, or --num_images evenly spaced over the source.

    Where the data has masks, they are one more channel.
    Prints a line for each image that cannot be read; TrainError if none can.
    """
    count = len(source) if config.inspect.images else min(config.inspect.num_images, len(source))
    broken = 0
    for index in np.linspace(0, len(source), count, endpoint=False).astype(int).tolist():
        try:
            yield read_with_mask(source, index, config.model.in_chans)[0]
        except BrokenImage as error:
            broken += 1
            print(f"skipped: {error}")
    refuse_unreadable(config, count, broken)


def refuse_unreadable(config: Config, images: int, broken: int) -> None:
    """TrainError if no image can be read."""
    if broken == images:
        flag = "--images" if config.inspect.images else "--data_path"
        raise TrainError(f"{flag}: none of the {images:,} images can be read")
