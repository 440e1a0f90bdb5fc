"""The Triton kernels as they are compiled for a GPU: they fit its registers."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

from backends.torch.kernels import depthwise
from benchmarks import kernels

REGISTERS, MULTIPROCESSORS, WARP = 65_536, 132, 32
"""Of a multiprocessor of an H100 or H200, multiprocessors, threads of a program."""


def test_no_kernel_spills() -> None:
    for name, found in kernels.resources().items():
        assert found.spill_bytes == 0, name


@pytest.mark.parametrize("side", kernels.SIDES)
def test_programs_run_side_by_side(side: int) -> None:
    """Three of the convolution for each of four schedulers; of the weight gradient, in bfloat16, all at once."""
    assert 12 * WARP * kernels.compile_for("conv", side, "fp32").registers <= REGISTERS
    programs = depthwise.GRADIENT[side].programs // MULTIPROCESSORS
    assert programs * WARP * kernels.compile_for("weight gradient", side, "bf16").registers <= REGISTERS


def test_a_kernel_that_asks_for_too_much_is_seen_to_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(depthwise.GRADIENT, 1, depthwise.Tiling(1, 7, 256))
    assert kernels.compile_for("weight gradient", 1, "fp32").spill_bytes > 0
