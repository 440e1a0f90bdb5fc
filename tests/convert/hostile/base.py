"""What hostile files are made from: valid arrays under a format's names."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import spec
from convert import formats, naming
from convert.arrays import entries_of
from tests.convert.samples import filled

Named = dict[str, np.ndarray]
Make = Callable[[Path, Path], Path]
"""(folder, bait) -> the file or folder made there; bait is a file that appears if its code ever runs."""

Cases = Iterator[tuple[str, Make]]

CLASSIFIER = spec.classifier(depths=(1, 2), dims=(8, 10), num_classes=3, stem_stride=2)
AUTOENCODER = spec.fcmae(depths=(1, 2), dims=(8, 10), stem_stride=2, image_size=16, decoder_dim=7)


def named(format: str) -> Named:
    model = AUTOENCODER if format == "official-sparse" else CLASSIFIER
    entries = naming.foreign(formats.named(format), model, entries_of(filled(model)))
    return {name: np.ascontiguousarray(entry.read()) for name, entry in entries.items()}
