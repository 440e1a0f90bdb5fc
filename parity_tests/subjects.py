"""What is tested, each backend with each of its engines, and the oracle's results: computed once per case."""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

import backends
import spec
from backends.protocol import Backend, Dtype
from parity_tests import oracle
from parity_tests.strategies import Case

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Subject:
    """One backend with one engine, on a device of the backend's choice unless given."""

    backend: str
    engine: str
    device: str | None = None

    def __str__(self) -> str:
        return f"{self.backend} {self.engine}"

    def load(self, model: spec.Model, arrays: Arrays, dtype: Dtype) -> tuple[Backend, Any]:
        """The backend, and the model in it with these arrays; models are built once."""
        backend, net = backends.load(self.backend), _built(self.backend, model, dtype, self.device)
        backend.set_arrays(net, arrays)
        return backend, net

    def forward(self, case: Case, dtype: Dtype) -> Arrays:
        """The backend's outputs and every intermediate."""
        backend, net = self.load(case.model, case.arrays, dtype)
        return backend.forward(net, case.images, case.mask, engine=self.engine, intermediates=True)

    def gradients(self, case: Case, dtype: Dtype) -> Arrays:
        backend, net = self.load(case.model, case.arrays, dtype)
        return backend.gradients(net, case.images, case.mask, engine=self.engine)


SUBJECTS = [Subject(name, engine) for name in backends.installed() for engine in backends.load(name).ENGINES]


@lru_cache(maxsize=64)
def _built(backend: str, model: spec.Model, dtype: Dtype, device: str | None) -> Any:
    return backends.load(backend).build(model, dtype=dtype, device=device)


@cache
def truth(case: Case) -> Arrays:
    """The oracle's outputs and intermediates."""
    return oracle.forward(case.model, case.arrays, case.images, case.mask)


@cache
def true_gradients(case: Case) -> Arrays:
    return oracle.gradients(case.model, case.arrays, case.images, case.mask)
