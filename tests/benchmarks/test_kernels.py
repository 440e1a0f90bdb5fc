"""The Triton kernels: right in Triton's interpreter, small enough once compiled, and right on a GPU if there is one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity_tests import tolerances

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from backends.torch import depthwise as plain  # noqa: E402
from backends.torch.kernels import depthwise  # noqa: E402
from backends.torch.space.patches import Halo  # noqa: E402
from benchmarks import kernels  # noqa: E402
from tests.benchmarks.interpreted import SIDES, Case, case, cases, whole  # noqa: E402

REGISTERS = 80
"""Per thread: 65,536 registers of a multiprocessor then hold six blocks of 128 threads, enough to hide the loads."""


def expected(name: str, given: Case) -> dict[str, np.ndarray]:
    """The results of the plain implementation."""
    x, grad, weight, bias, halo = given
    return {
        f"{name}: forward": plain._conv(x, weight, bias, halo).numpy(),
        f"{name}: without a bias": plain._conv(x, weight, None, halo).numpy(),
        f"{name}: weights": plain._weight_gradient(x, grad, weight, halo).numpy(),
    }


def bound(given: Case, dtype: str) -> float:
    """At most as many roundings as sites."""
    return tolerances.FORWARD * tolerances.EPS[dtype] * given.x[..., 0].numel() ** 0.5


def test_the_kernels_compute_what_the_plain_form_does(tmp_path: Path) -> None:
    path = tmp_path / "found.npz"
    subprocess.run([sys.executable, "-m", "tests.benchmarks.interpreted", str(path)], check=True)
    found = dict(np.load(path))
    for name, given in cases():
        truth = expected(name, given)
        tolerances.assert_all_close({key: found.pop(key) for key in truth}, truth, bound(given, "float64"), "triton")
    for engine in ("masked", "visible"):
        truth = whole(engine)
        found_whole = {key: found.pop(key) for key in truth}
        tolerances.assert_all_close(found_whole, truth, bound(case(8, 8, 7), "float64"), "triton, whole")
    assert not found


def test_no_kernel_spills_or_crowds_the_others_out() -> None:
    for name, found in kernels.resources().items():
        assert found.spill_bytes == 0, name
        assert found.registers <= REGISTERS, name


def test_a_kernel_that_asks_for_too_much_is_seen_to_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise, "SITES", 512)
    assert kernels.compile_for(depthwise.conv_kernel, 8, "fp32").spill_bytes > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_the_kernels_are_right_on_this_gpu(side: int, dtype: str) -> None:
    *drawn, halo = case(side, 70, 7)
    given = [value.to(getattr(torch, dtype)) for value in drawn]
    x, grad, weight, bias = (value.cuda() for value in given)
    index = halo.rows.cuda()
    truth = Case(*(value.double() for value in given), halo)
    found = {
        ": forward": depthwise.conv(x, weight, bias, index),
        ": without a bias": depthwise.conv(x, weight, None, index),
        ": weights": depthwise.weight_gradient(x, grad, weight, index),
    }
    on_host = {name: value.double().cpu().numpy() for name, value in found.items()}
    tolerances.assert_all_close(on_host, expected("", truth), bound(truth, dtype), f"triton, {dtype}, side {side}")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
def test_the_kernels_live_inside_a_compiled_whole() -> None:
    given = case(8, 64, 7)
    x, _, weight, bias = (value.cuda() for value in given[:4])
    found = torch.compile(plain.halo_conv, fullgraph=True)(x, weight, bias, Halo(given.halo.rows.cuda()), True)
    truth = plain._conv(given.x, given.weight, given.bias, given.halo)
    tolerances.assert_close(found.cpu().numpy(), truth.numpy(), bound(given, "float64"), "compiled")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("engine", ["masked", "visible"])
def test_a_whole_model_is_right_on_this_gpu(engine: str, compiled: bool) -> None:
    truth = whole(engine)
    torch.compiler.reset()
    found = whole(engine, "cuda", compiled=compiled)
    tolerances.assert_all_close(found, truth, bound(case(8, 8, 7), "float64"), f"triton, {engine}")
