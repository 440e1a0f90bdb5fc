"""What a container reads and writes: the arrays of a file, in the names of its own format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convert.arrays import Entries, entries_of
from spec import Model


@dataclass
class AdamWState:
    """AdamW's first and second moments by parameter, the number of updates, and the hyperparameters in use.

    A torch file knows parameters by index only: there the names are "0", "1", ..., and hyper["groups"]
    lists the parameter groups (see `adamw`).
    """

    mu: Mapping[str, np.ndarray]
    nu: Mapping[str, np.ndarray]
    t: int
    hyper: dict[str, Any] = field(default_factory=dict)


@dataclass
class Content:
    """The arrays of a file by group, under the file's own names.

    meta: epoch, args, classes (the names, in the order of the head's outputs) and whatever else a
    training script keeps, as values that JSON can hold. model and format are those that the file
    records, or None; fields are those of an encoder that it records without a model. notes: what was
    not read, or has no room in the container that wrote it.
    """

    params: Entries
    ema: Entries = field(default_factory=dict)
    optimizer: AdamWState | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    model: Model | None = None
    format: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The names of the classes; empty if unknown."""
        return list(self.meta.get("classes", ()))

    @property
    def nbytes(self) -> int:
        """The size of all arrays together."""
        state = self.optimizer
        moments = [entries_of(moment) for moment in (state.mu, state.nu)] if state else []
        return sum(entry.nbytes for group in (self.params, self.ema, *moments) for entry in group.values())

    def leave_classes(self, why: str) -> None:
        """Note that the names of the classes, if known, are not written."""
        if self.classes:
            self.notes.append(f"left out: the names of {len(self.classes)} classes: {why}")
