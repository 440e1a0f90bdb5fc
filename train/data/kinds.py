"""Files that hold many images, recognised by their names."""

import re
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

from train.errors import TrainError

IDX = "images?idx*"
SHARDS = (".tar", ".parquet", ".npz", IDX)
"""How the names of these files end, as patterns."""


def kind(file: Path) -> str | None:
    """The pattern of SHARDS that a name ends in; None for other files."""
    return next((ending for ending in SHARDS if fnmatchcase(file.name, f"*{ending}")), None)


def without_copies(files: list[Path]) -> list[Path]:
    """Files without those of which a decompressed copy lies beside them."""
    return [file for file in files if file.suffix != ".gz" or file.with_suffix("") not in files]


def labels_prefix(images: Path) -> str:
    """How the name of the labels of an IDX file of images begins: train-labels for train-images-idx3-ubyte.gz."""
    return re.sub(r"images.idx.*", "labels", images.name)


def labels_beside(images: Path) -> Path | None:
    """The file with the labels of a file of images; None if there is none. TrainError for several."""
    if kind(images) != IDX:
        return None
    found = without_copies(sorted(images.parent.glob(f"{escape(labels_prefix(images))}?idx*")))
    if len(found) > 1:
        raise TrainError(f"{images}: has labels in {found[0].name} and in {found[1].name}; move one of them away")
    return found[0] if found else None
