"""How a data set is read, and what was left out of it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from train.config.config import Config, format_value
from train.config.groups import DataConfig
from train.data.decode import BrokenImage, Decoding, probe
from train.data.values import OtherType, Values
from train.errors import TrainError

if TYPE_CHECKING:
    from train.data.sources import Source

KINDS = {
    "image_key": "tar shards",
    "label_key": "tar shards",
    "image_column": "parquet files",
    "label_column": "parquet files",
    "mask_key": "tar shards and npz files",
    "mask_column": "parquet files",
    "exif": "image files",
    "image_bits": "16-bit images",
    "channel_axis": "arrays whose axes have no names",
}
"""Flag -> the kind of data that it is for."""

IN_ARRAYS = ("image_bits", "channel_axis")
IN_FILES = ("exif", *IN_ARRAYS)
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

PROBED = 64
"""Images that are looked into for one that can be read."""

TRANSPARENT = "the first image has transparency, which --in_chans 1 and 3 drop"


def read_options(config: DataConfig) -> ReadOptions:
    """The options that the flags give."""
    decoding = Decoding(config.exif, config.max_image_pixels, config.image_bits, config.channel_axis)
    images = (config.image_key, config.label_key, config.image_column, config.label_column)
    return ReadOptions(*images, decoding, config.mask_key, config.mask_column)


class Reading(NamedTuple):
    """What a source says about how it was read.

    left_out: phrases for what was found and is not used. unlabelled: why all images are in one
    class, and what to do about it. notes: what else the user should know. uses: the flags of KINDS
    that are for this kind of data. values: what the pixel values are.
    """

    options: ReadOptions = DEFAULTS
    left_out: tuple[str, ...] = ()
    unlabelled: str = "give each class a folder of its own"
    notes: tuple[str, ...] = ()
    uses: tuple[str, ...] = IN_FILES
    values: Values = Values()

    @property
    def masked(self) -> bool:
        """Whether each image comes with a mask of where it has no data."""
        return any(name in self.uses and getattr(self.options, name) for name in ("mask_key", "mask_column"))


def probed(reading: Reading, source: "Source") -> Reading:
    """The reading with what the first readable image tells; unchanged if none of the first PROBED can be read.

    TrainError for arrays of a type that is not read.
    """
    decoding = reading.options.decoding
    for index in range(min(PROBED, len(source))):
        try:
            data, _, key = source[index]
            found = probe(data, decoding)
            values = Values.of(found.dtype, decoding.bits)
        except (BrokenImage, OSError) as error:
            if isinstance(error, OtherType) and isinstance(data, np.ndarray):  # so have all images of the source
                raise TrainError(f"{key}: {error}") from None
            continue
        unused = {"image_bits": found.dtype != np.uint16, "channel_axis": found.named_axes, "exif": not found.exif}
        uses = tuple(name for name in reading.uses if not unused.get(name))
        notes = (*reading.notes, *[TRANSPARENT][: found.transparent])
        return reading._replace(values=values, uses=uses, notes=notes)
    return reading


def refuse_unused(config: DataConfig, *readings: Reading) -> None:
    """TrainError for a flag of KINDS that was given, if none of the data is of its kind."""
    for name, kind in KINDS.items():
        value, default = getattr(config, name), getattr(DataConfig(), name)
        if value != default and not any(name in reading.uses for reading in readings):
            unset = "none" if default is None else default
            raise TrainError(f"--{name} {value}: is for {kind}, and there are none; give --{name} {unset}")


def check_data(config: Config, *readings: Reading) -> str:
    """One line: the values of the images that a run reads, and their normalisation.

    TrainError for a flag that none of the data uses, and if --mean and --std are in another unit than the values.
    """
    refuse_unused(config.data, *readings)
    found = [reading.values for reading in readings]
    if {"mean", "std"} <= config.given:
        other = next((values for values in found if (values.top is None) != (found[0].top is None)), None)
        if other:
            raise TrainError(f"--mean: is in one unit, the images are {found[0]} and {other}; convert the latter")
    else:
        other = next((values for values in found if str(values) != config.normalises), None)
        if other:
            raise TrainError(
                f"--mean and --std: their values are for {config.normalises}, the images are {other};"
                " give both, as twinnext stats DATA prints them"
            )
    mean, std = format_value(config.data.mean), format_value(config.data.std)
    return f"values: {found[0]}, normalised as {found[0].normalised()}, mean {mean}, std {std}"
