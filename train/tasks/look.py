"""What the tasks that look into a checkpoint share: the images to look at, and a place for what they show."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

from train.command.config import Config
from train.data.decode import BrokenImage
from train.data.feed import read
from train.data.reading import Reading
from train.data.sources import Item, Source, open_eval
from train.errors import TrainError


class Files:
    """Image files named one by one, all of one class; TrainError for one that is not there."""

    classes = (".",)
    reading = Reading()

    def __init__(self, files: tuple[str, ...]) -> None:
        for file in files:
            if Path(file).is_dir():
                raise TrainError(f"--images {file}: a folder; give it as --data_path {file}")
            if not Path(file).is_file():
                raise TrainError(f"--images {file}: no such file")
        self.files, self.labels, self.fingerprint = files, [0] * len(files), "\n".join(files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Item:
        return Path(self.files[index]).read_bytes(), 0, self.name(index)

    def name(self, index: int) -> str:
        """The path of an image."""
        return self.files[index]


def source(config: Config) -> Source:
    """The files of --images, or the part of --data_path for validation; TrainError when there is nothing to read."""
    return Files(config.images) if config.images else open_eval(config.data_path, "--data_path")


def images(config: Config, source: Source) -> Iterator[np.ndarray]:
    """Each (H, W, C) uint8: all that --images names, or --num_images evenly spread over the source.

    An image that cannot be read costs a line; TrainError when none can.
    """
    count = len(source) if config.images else min(config.num_images, len(source))
    broken = 0
    for index in np.linspace(0, len(source), count, endpoint=False).astype(int).tolist():
        try:
            yield read(source, index, config.in_chans)[0]
        except BrokenImage as error:
            broken += 1
            print(f"skipped: {error}")
    if broken == count:
        raise TrainError(f"{'--images' if config.images else '--data_path'}: none of the {count} images can be read")


def make_folder(config: Config) -> Path:
    """The output folder, made; TrainError when it cannot be."""
    try:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=config.run_dir):
            return config.run_dir
    except OSError as error:
        raise TrainError(f"--output_dir {config.run_dir}: cannot be written: {error.strerror}") from None
