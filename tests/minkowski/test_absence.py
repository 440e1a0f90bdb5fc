"""Without MinkowskiEngine everything else works, and asking for it ends in one line that says how to get it."""

import sys

import numpy as np
import pytest

from backends import api
from backends.protocol import BackendError

REST = ("masked", "visible")


def test_asking_for_it_says_how_to_get_it() -> None:
    with pytest.raises(BackendError, match=r"^engine: 'minkowski' .*MinkowskiEngine.*: make minkowski$"):
        api.choose_engine("minkowski", REST, None, 4)


@pytest.mark.parametrize("mask", [None, np.zeros((1, 2, 2))])
@pytest.mark.parametrize("visible", [2, None])
def test_it_is_never_chosen_unasked(mask: np.ndarray | None, visible: int | None) -> None:
    assert api.choose_engine(None, (*REST, "minkowski"), mask, visible) in REST


def test_a_broken_build_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the wheel was compiled for another torch, or is not there at all."""
    torch = pytest.importorskip("torch")
    from backends.torch.space.engines import enter

    monkeypatch.setitem(sys.modules, "MinkowskiEngine", None)
    monkeypatch.delitem(sys.modules, "backends.torch.space.minkowski", raising=False)
    with pytest.raises(BackendError, match=r"^engine: 'minkowski' does not load \(.*\); .*: make minkowski$"):
        enter("minkowski", torch.zeros(1, 4, 4, 3), None, patch=4, kept=1, kernel_size=7, kernels=False)
