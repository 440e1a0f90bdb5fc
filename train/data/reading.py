"""How a data set is read, and what was left out of it."""

from dataclasses import dataclass, field
from typing import NamedTuple

from train.data.decode import Decoding


@dataclass(frozen=True)
class ReadOptions:
    """Which members or columns hold images and labels, and how images are decoded.

    image_key, label_key: extensions of a tar's members, such as "jpg" and "cls"; a label in a
    JSON member is "json:FIELD" or "json:FIELD.FIELD". image_column, label_column: of a parquet
    file. None: the usual ones.
    """

    image_key: str | None = None
    label_key: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    decoding: Decoding = field(default_factory=Decoding)


DEFAULTS = ReadOptions()


class Reading(NamedTuple):
    """What a source says about how it was read.

    left_out: phrases for what was found and is not used. unlabelled: why all images are in one
    class, and what to do about it. notes: what else the user should know.
    """

    options: ReadOptions = DEFAULTS
    left_out: tuple[str, ...] = ()
    unlabelled: str = "give each class a folder of its own"
    notes: tuple[str, ...] = ()
