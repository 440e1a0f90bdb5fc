"""The images of the tasks that inspect a checkpoint."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from train.config import Config
from train.data.decode import BrokenImage
from train.data.feed import read
from train.data.reading import Reading, ReadOptions, check_data, probed, read_options
from train.data.sources import Item, Source, open_eval
from train.errors import TrainError


class ImageFiles:
    """A source of image files given one by one, all of one class; TrainError for one that is not there."""

    classes = (".",)

    def __init__(self, files: tuple[str, ...], options: ReadOptions) -> None:
        for file in files:
            if Path(file).is_dir():
                raise TrainError(f"--images {file}: a folder; give it as --data_path {file}")
            if not Path(file).is_file():
                raise TrainError(f"--images {file}: no such file")
        self.files, self.labels, self.fingerprint = files, [0] * len(files), "\n".join(files)
        self.reading = probed(Reading(options), self)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Item:
        return Path(self.files[index]).read_bytes(), 0, self.name(index)

    def name(self, index: int) -> str:
        """The path of an image."""
        return self.files[index]


def open_images(config: Config) -> Source:
    """The files of --images, or the validation split of --data_path; TrainError if there is nothing to read.

    Prints what their values are.
    """
    files, options = config.inspect.images, read_options(config.data)
    if files and "num_images" in config.given:
        raise TrainError("--num_images: is for images of --data_path; all of --images are used; leave it out")
    source = ImageFiles(files, options) if files else open_eval(config.data.data_path, "--data_path", options)
    print(check_data(config, source.reading))
    return source


def read_images(config: Config, source: Source) -> Iterator[np.ndarray]:
    """Each image (H, W, C), uint8 or float32: all of --images, or --num_images evenly spaced over the source.

    Prints a line for each image that cannot be read; TrainError if none can.
    """
    count = len(source) if config.inspect.images else min(config.inspect.num_images, len(source))
    broken = 0
    for index in np.linspace(0, len(source), count, endpoint=False).astype(int).tolist():
        try:
            yield read(source, index, config.model.in_chans)[0]
        except BrokenImage as error:
            broken += 1
            print(f"skipped: {error}")
    if broken == count:
        flag = "--images" if config.inspect.images else "--data_path"
        raise TrainError(f"{flag}: none of the {count} images can be read")
