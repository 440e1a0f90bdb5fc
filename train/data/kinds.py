"""Files that hold many images, recognised by their names."""

import re
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

from train.errors import TrainError

IDX = "images?idx*"
STL10 = "_X.bin"
SHARDS = (".tar", ".parquet", ".npz", IDX, STL10)
"""How the names of these files end, as patterns."""

CLASS_NAMES = "class_names.txt"
"""The name of STL-10's list of classes."""


def kind(file: Path) -> str:
    """The pattern of SHARDS that a name ends in; "" for other files."""
    return next((ending for ending in SHARDS if fnmatchcase(file.name, f"*{ending}")), "")


def without_copies(files: list[Path]) -> list[Path]:
    """Files without those of which a decompressed copy lies beside them."""
    return [file for file in files if file.suffix != ".gz" or file.with_suffix("") not in files]


def labels_name(images: Path) -> str:
    """The usual name of the labels of an IDX or STL-10 file: train-labels-idx1-ubyte for train-images-idx3-ubyte.gz."""
    if kind(images) == STL10:
        return images.name.replace(STL10, "_y.bin")
    return re.sub(r"images.idx.*", "labels-idx1-ubyte", images.name)


def labels_beside(images: Path) -> Path | None:
    """The file with the labels of an IDX or STL-10 file; None if there is none. TrainError for several."""
    pattern = escape(labels_name(images)).replace("-idx1-ubyte", "?idx*")
    found = without_copies(sorted(filter(Path.is_file, images.parent.glob(pattern))))
    if len(found) > 1:
        raise TrainError(f"{images}: has labels in {found[0].name} and in {found[1].name}; move one of them away")
    return found[0] if found else None


def companions(images: Path) -> list[Path]:
    """The files that are read with a file of images."""
    labels = [labels_beside(images)] if kind(images) in (IDX, STL10) else []
    return [*filter(None, labels), *[images.with_name(CLASS_NAMES)][: kind(images) == STL10]]
