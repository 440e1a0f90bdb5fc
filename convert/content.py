"""What passes between a container and the rules: named entries, in the names of one format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convert.arrays import Entries
from spec import Model


@dataclass
class AdamW:
    """AdamW's state: first and second moments by parameter, updates made, and the hyperparameters it ran with."""

    mu: Mapping[str, np.ndarray]
    nu: Mapping[str, np.ndarray]
    t: int
    hyper: dict[str, Any] = field(default_factory=dict)


@dataclass
class TorchState:
    """torch.optim.AdamW's state dict: by index, not by name (see `adamw`)."""

    mu: dict[int, Any]
    nu: dict[int, Any]
    t: int
    groups: list[dict[str, Any]]


@dataclass
class Content:
    """A file's entries by group, in the file's own names.

    meta: epoch, args and what else a training script keeps, of JSON's kinds only. model and
    format are what the file says of itself, or None.
    """

    params: Entries
    ema: Entries = field(default_factory=dict)
    optimizer: AdamW | TorchState | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    model: Model | None = None
    format: str | None = None
    notes: list[str] = field(default_factory=list)
