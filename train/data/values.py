"""What the pixel values of a data set are: their type, their range, and the unit of --mean and --std."""

from typing import NamedTuple

import numpy as np

TOPS = {"uint8": 255, "uint16": 65535}
"""Integer type -> its largest value, which is 1 in the unit of --mean and --std."""

OWN_UNITS = ("int8", "int16", "float16", "float32", "float64")
"""Types whose values are taken as they are; --mean and --std are in their unit."""


class BrokenImage(Exception):
    """An image cannot be read; the message names the image and the reason."""


class OtherType(BrokenImage):
    """The values of an image are of a type that is not read, or not of that of its data set."""


class Values(NamedTuple):
    """The type of the values of all images of a source. top: the value that counts as 1; None: taken as they are."""

    dtype: str = "uint8"
    top: int | None = 255

    @classmethod
    def of(cls, dtype: np.dtype, bits: int | None = None) -> "Values":
        """The values of a type. bits: significant bits of uint16 (None: 16). Raises OtherType if it is not read."""
        if dtype.name not in (*TOPS, *OWN_UNITS):
            raise OtherType(f"holds {dtype}; convert it to one of {', '.join((*TOPS, *OWN_UNITS))}")
        return cls(dtype.name, 2**bits - 1 if bits and dtype == np.uint16 else TOPS.get(dtype.name))

    def __str__(self) -> str:
        """Type and range: "uint8 0..255", "float32 as is"."""
        if self.top is not None:
            return f"{self.dtype} 0..{self.top}"
        return f"{self.dtype} as is" + (", rounded to float32" if self.dtype == "float64" else "")

    def normalised(self) -> str:
        """The formula of normalisation."""
        return f"({'value' if self.top is None else f'value / {self.top}'} - mean) / std"

    def scaled(self, image: np.ndarray) -> np.ndarray:
        """uint8 unchanged, which the device divides by 255; others as float32 in the unit of --mean and --std.

        Raises BrokenImage for another type, for values above the range, for NaN and infinity.
        """
        if image.dtype != self.dtype:
            Values.of(image.dtype)
            raise OtherType(f"holds {image.dtype}, the first image {self.dtype}; convert all images to one type")
        if image.dtype == np.uint8:
            return image
        if self.top is None:
            return _finite(image.astype(np.float32))
        if (largest := int(image.max())) > self.top:
            bits = self.top.bit_length()
            raise BrokenImage(f"its values reach {largest:,}, more than --image_bits {bits} allows; leave it out")
        return image / np.float32(self.top)


def _finite(image: np.ndarray) -> np.ndarray:
    wrong = image.size - int(np.isfinite(image).sum())
    if wrong:
        raise BrokenImage(f"{wrong:,} of its {image.size:,} values are NaN or infinite; replace them in the file")
    return image
