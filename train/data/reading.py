"""How a data set is read, and what was left out of it."""

from dataclasses import dataclass, field
from typing import NamedTuple

from train.config.groups import DataConfig
from train.data.decode import Decoding
from train.errors import TrainError

KINDS = {
    "image_key": "tar shards",
    "label_key": "tar shards",
    "image_column": "parquet files",
    "label_column": "parquet files",
    "mask_key": "tar shards and npz files",
    "mask_column": "parquet files",
    "exif": "image files",
    "image_bits": "image files",
}
"""Flag -> the kind of data that it is for."""

IN_FILES = ("exif", "image_bits")
IN_TARS = (*IN_FILES, "image_key", "label_key", "mask_key")
IN_PARQUET = (*IN_FILES, "image_column", "label_column", "mask_column")


@dataclass(frozen=True)
class ReadOptions:
    """Which members or columns hold images and labels, and how images are decoded.

    image_key, label_key: extensions of a tar's members, such as "jpg" and "cls"; a label in a
    JSON member is "json:FIELD" or "json:FIELD.FIELD". image_column, label_column: of a parquet
    file. None: the usual ones. mask_key: extension in tars, or array in an npz file; mask_column: of a parquet
    file. None: no masks.
    """

    image_key: str | None = None
    label_key: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    decoding: Decoding = field(default_factory=Decoding)
    mask_key: str | None = None
    mask_column: str | None = None


DEFAULTS = ReadOptions()


def read_options(config: DataConfig) -> ReadOptions:
    """The options that the flags give."""
    decoding = Decoding(config.exif, config.max_image_pixels, config.image_bits)
    images = (config.image_key, config.label_key, config.image_column, config.label_column)
    return ReadOptions(*images, decoding, config.mask_key, config.mask_column)


class Reading(NamedTuple):
    """What a source says about how it was read.

    left_out: phrases for what was found and is not used. unlabelled: why all images are in one
    class, and what to do about it. notes: what else the user should know. uses: the flags of KINDS
    that are for this kind of data.
    """

    options: ReadOptions = DEFAULTS
    left_out: tuple[str, ...] = ()
    unlabelled: str = "give each class a folder of its own"
    notes: tuple[str, ...] = ()
    uses: tuple[str, ...] = IN_FILES

    @property
    def masked(self) -> bool:
        """Whether each image comes with a mask of where it has no data."""
        return any(name in self.uses and getattr(self.options, name) for name in ("mask_key", "mask_column"))


def refuse_unused(config: DataConfig, *readings: Reading) -> None:
    """TrainError for a flag of KINDS that was given, if none of the data is of its kind."""
    for name, kind in KINDS.items():
        value, default = getattr(config, name), getattr(DataConfig(), name)
        if value != default and not any(name in reading.uses for reading in readings):
            unset = "none" if default is None else default
            raise TrainError(f"--{name} {value}: is for {kind}, and there are none; give --{name} {unset}")
