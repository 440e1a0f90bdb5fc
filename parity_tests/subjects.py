"""Who is judged, each backend under each of its engines, and what the oracle says: computed once a case."""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

import backends
import spec
from parity_tests import oracle
from parity_tests.strategies import Case

Arrays = dict[str, np.ndarray]
UNASKED: Any = object()


@dataclass(frozen=True)
class Subject:
    """One backend under one engine."""

    backend: str
    engine: str

    def __str__(self) -> str:
        return f"{self.backend} {self.engine}"

    def forward(self, case: Case, dtype: str, *, images: Any = UNASKED, mask: Any = UNASKED) -> Arrays:
        """The door's outputs and every intermediate, on the case's images and mask or on others."""
        images, mask = _either(images, case.images), _either(mask, case.mask)
        net = loaded(self.backend, case, dtype)
        return backends.load(self.backend).forward(net, images, mask, engine=self.engine, taps=True)

    def gradients(self, case: Case, dtype: str, *, images: Any = UNASKED, mask: Any = UNASKED) -> Arrays:
        """The door's gradients, likewise."""
        images, mask = _either(images, case.images), _either(mask, case.mask)
        net = loaded(self.backend, case, dtype)
        return backends.load(self.backend).gradients(net, images, mask, engine=self.engine)


SUBJECTS = [Subject(name, engine) for name in backends.installed() for engine in backends.load(name).ENGINES]


def loaded(backend: str, case: Case, dtype: str) -> Any:
    """The case's model in a backend, with the case's arrays."""
    net = _built(backend, case.model, dtype)
    backends.load(backend).set_arrays(net, case.arrays)
    return net


@lru_cache(maxsize=64)
def _built(backend: str, model: spec.Model, dtype: Any) -> Any:
    return backends.load(backend).build(model, dtype=dtype)


@cache
def truth(case: Case) -> Arrays:
    """The oracle's outputs and intermediates."""
    return oracle.forward(case.model, case.arrays, case.images, case.mask)


@cache
def true_gradients(case: Case) -> Arrays:
    return oracle.gradients(case.model, case.arrays, case.images, case.mask)


def _either(given: Any, usual: Any) -> Any:
    return usual if given is UNASKED else given
