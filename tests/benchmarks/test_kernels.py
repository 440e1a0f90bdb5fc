"""The Triton kernels as they are compiled for a GPU: they fit its registers."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

from backends.torch.kernels import depthwise
from benchmarks import kernels

REGISTERS = 160
"""A thread: 65,536 registers per multiprocessor then hold 12 programs of one warp, three for each scheduler."""


def test_no_kernel_spills_or_crowds_the_others_out() -> None:
    for name, found in kernels.resources().items():
        assert found.spill_bytes == 0, name
        assert found.registers <= REGISTERS, name


def test_a_kernel_that_asks_for_too_much_is_seen_to_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(depthwise.GRADIENT, 1, depthwise.Tiling(1, 7, 256))
    assert kernels.compile_for("weight gradient", 1, "fp32").spill_bytes > 0
