"""GELU without erf, as compiled bfloat16 computes it on CUDA, against erf in float64."""

from collections.abc import Callable

import pytest

from parity_tests import tolerances

torch = pytest.importorskip("torch")

from backends.torch import gelu as ours  # noqa: E402

COMPILERS_OWN = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
Function = Callable[[torch.Tensor], torch.Tensor]


def every_bfloat16() -> torch.Tensor:
    """All finite values that are no denormals."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    return values[values.isfinite() & ((values == 0) | (values.abs() > torch.finfo(torch.float32).tiny))]


def value_and_slope(function: Function, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    y = function(x)
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    return y.detach(), x.grad


def test_every_value_and_slope() -> None:
    x = every_bfloat16().float()
    value, slope = value_and_slope(ours.Gelu.apply, x)
    true_value, true_slope = value_and_slope(torch.nn.functional.gelu, x.double())
    assert ((value - true_value).abs() <= tolerances.GELU * true_value.abs().clamp(min=tolerances.GELU)).all()
    assert ((slope - true_slope).abs() <= tolerances.GELU).all()


def test_another_polynomial_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "LOGIT", (*ours.LOGIT[:-1], -2.302))
    with pytest.raises(AssertionError):
        test_every_value_and_slope()


@COMPILERS_OWN
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_where_it_is_used(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """In compiled bfloat16 alone."""
    graphs: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        graphs.append(graph.print_readable(print_output=False))
        return graph

    monkeypatch.setattr(ours, "_on_cuda", lambda x: True)
    torch.compiler.reset()
    x = torch.linspace(-3, 3, 8, dtype=dtype)
    found = value_and_slope(torch.compile(ours.gelu, backend=backend, fullgraph=True), x)
    assert ("rsqrt" in "".join(graphs)) == (dtype == torch.bfloat16)
    bound = tolerances.EPS[str(dtype).removeprefix("torch.")]
    for one, other in zip(found, value_and_slope(torch.nn.functional.gelu, x), strict=True):
        tolerances.assert_close(one.float().numpy(), other.float().numpy(), bound, "compiled")
