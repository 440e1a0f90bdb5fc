"""The Triton kernels: right in Triton's interpreter, and on a GPU if there is one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backends
import spec
from parity_tests import tolerances

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from triton.runtime.interpreter import InterpretedFunction  # noqa: E402

from backends.torch import depthwise as plain  # noqa: E402
from backends.torch import model as models  # noqa: E402
from backends.torch.kernels import depthwise  # noqa: E402
from backends.torch.space import patches  # noqa: E402

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
COMPILERS_OWN = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates


class Case(NamedTuple):
    """Some images of which some patches are visible, and a gradient of what the convolution makes of them."""

    x: torch.Tensor
    grad: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    halo: patches.Halo


def case(
    side: int, channels: int, k: int, dtype: str = "float64", grid: tuple[int, int] = (2, 3), images: int = 2
) -> Case:
    """Half of the patches are visible."""
    draw = torch.Generator().manual_seed(side * k + channels)
    total = grid[0] * grid[1]
    ranks = torch.rand(images, total, generator=draw).argsort(1).argsort(1)
    layout = patches.Layout.of((ranks >= total // 2).view(images, *grid), total // 2)
    sites = images, total // 2, side, side, channels
    drawn = [torch.randn(shape, generator=draw) for shape in (sites, sites, (channels, 1, k, k), (channels,))]
    return Case(*(value.to(getattr(torch, dtype)) for value in drawn), layout._patch_halo(side, k // 2))


def computed(given: Case, kernels: bool) -> dict[str, np.ndarray]:
    """The convolution and its gradients, by the kernels or by the plain form."""
    x, grad, weight, bias, halo = given
    by_weight, by_bias = plain._parameter_gradients(x, grad, weight, halo, kernels)
    found = {
        "forward": plain._conv(x, weight, bias, halo, kernels),
        "without a bias": plain._conv(x, weight, None, halo, kernels),
        "by weight": by_weight,
        "by bias": by_bias,
    }
    return {name: value.double().cpu().numpy() for name, value in found.items()}


def assert_right(given: Case, device: str = "cpu") -> None:
    """The kernels compute what the plain form computes in float64."""
    *values, halo = given
    truth = computed(Case(*(value.double() for value in values), halo), kernels=False)
    there = Case(*(value.to(device) for value in values), patches.Halo(halo.rows.to(device)))
    tolerances.assert_all_close(computed(there, kernels=True), truth, bound(given), "triton")


def bound(given: Case) -> float:
    kind = str(given.x.dtype).removeprefix("torch.")
    return tolerances.FORWARD * tolerances.EPS[kind] * given.x[..., 0].numel() ** 0.5


@contextmanager
def interpreted() -> Iterator[None]:
    """The kernels run on CPU, by numpy."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("conv_kernel", "gradient_kernel"):
            patch.setattr(depthwise, name, InterpretedFunction(getattr(depthwise, name).fn))
        yield


@pytest.mark.parametrize("side", [8, 4, 2, 1])
def test_the_kernels_of_every_stage(side: int) -> None:
    with interpreted():
        assert_right(case(side, 5, 7, grid=(1, 3) if side == 8 else (2, 3), images=1))


SHAPES = [(side, k) for side in range(1, 9) for k in (1, 3, 5, 7) if side * k <= 24]
"""Sides of a patch and kernel sizes that the interpreter, a millisecond an operation, has time for."""


@given(
    shape=st.sampled_from(SHAPES),
    channels=st.sampled_from([1, 5, 64, 70, 128, 130, 257]),
    dtype=st.sampled_from(["float64", "float32", "bfloat16"]),
)
def test_any_patch_and_kernel(shape: tuple[int, int], channels: int, dtype: str) -> None:
    with interpreted():
        assert_right(case(shape[0], channels, shape[1], dtype, grid=(2, 2), images=1))


def test_a_wrong_neighbour_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = depthwise.conv
    monkeypatch.setattr(depthwise, "conv", lambda x, weight, bias, rows: right(x, weight, bias, rows.roll(1, 0)))
    with interpreted(), pytest.raises(AssertionError, match="forward"):
        assert_right(case(2, 5, 3))


def whole(device: str = "cpu", *, compiled: bool = False, **options: str) -> dict[str, np.ndarray]:
    """Loss and gradients of a small autoencoder."""
    model = spec.fcmae(depths=(1, 1), dims=(8, 8), image_size=(16, 24), mask_ratio=0.5, decoder_dim=8)
    net = backends.load("torch").build(model, dtype="float64", device=device)
    call = torch.compile(net, fullgraph=True) if compiled else net
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(2, 16, 24, 3, generator=draw, dtype=torch.float64)
    mask = (torch.rand(2, 6, generator=draw).argsort(1).argsort(1) >= 3).view(2, 2, 3)
    loss = call(images.to(device), mask.to(device), visible=3, **options)["loss"]
    named = dict(net.named_parameters())
    slopes = torch.autograd.grad(loss, list(named.values()))
    found = dict(zip(named, slopes, strict=True)) | {"loss": loss.detach()}
    return {name: value.cpu().numpy() for name, value in found.items()}


WHOLE_BOUND = tolerances.FORWARD * tolerances.EPS["float64"] * 96**0.5  # as many roundings as sites of the grid


def test_a_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = whole(engine="visible")
    monkeypatch.setattr(models, "use_triton", lambda kernels, device: True)
    monkeypatch.setattr(patches, "WHOLE", float("inf"))
    with interpreted():
        found = whole(engine="visible")
    tolerances.assert_all_close(found, truth, WHOLE_BOUND, "triton")


class Recorder:
    """A kernel that keeps what it is compiled for: dtypes of tensors, and constants."""

    def __init__(self, kernel: Any) -> None:
        self.names = [param.name for param in kernel.params if not param.do_not_specialize]
        self.signature, self.warmed, self.launched = kernel.signature, set[Any](), set[Any]()

    def variant(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        named = self.signature.bind(*args).arguments
        return tuple(getattr(named[name], "dtype", named[name]) for name in self.names)

    def warmup(self, *args: Any, grid: Any, num_warps: int) -> None:
        self.warmed.add((*self.variant(args), num_warps))

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, num_warps: self.launched.add((*self.variant(args), num_warps))


@pytest.mark.parametrize("side", [4, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_what_is_compiled_ahead_is_launched(side: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorders = [Recorder(kernel) for kernel in (depthwise.conv_kernel, depthwise.gradient_kernel)]
    for name, recorder in zip(("conv_kernel", "gradient_kernel"), recorders, strict=True):
        monkeypatch.setattr(depthwise, name, recorder)
    computed(case(side, 70, 3, dtype), kernels=True)
    monkeypatch.setattr(depthwise, "ThreadPoolExecutor", AtOnce)
    depthwise.compile_ahead([(side, 70)], 3, getattr(torch, dtype))
    for recorder in recorders:
        assert recorder.warmed == recorder.launched != set()


class AtOnce:
    """An executor that runs what it is given before it returns."""

    def submit(self, function: Callable[..., None], *args: Any, **options: Any) -> None:
        function(*args, **options)

    def shutdown(self, wait: bool) -> None: ...


@COMPILERS_OWN
def test_compiled() -> None:
    """The compiler sees shapes and types alone."""
    x, grad, weight, bias, halo = given = case(2, 5, 3)
    leaves = [value.requires_grad_() for value in (x, weight, bias)]

    def slopes(halo_conv: Callable[..., torch.Tensor], kernels: bool) -> dict[str, np.ndarray]:
        y = halo_conv(*leaves, halo, kernels)
        named = zip("xwb", torch.autograd.grad(y, leaves, grad), strict=True)
        return {name: value.numpy() for name, value in named} | {"y": y.detach().numpy()}

    torch.compiler.reset()
    with interpreted():
        found = slopes(torch.compile(plain.halo_conv, fullgraph=True, backend="aot_eager"), kernels=True)
    tolerances.assert_all_close(found, slopes(plain.halo_conv, kernels=False), bound(given), "compiled")


def assert_right_under_vmap(device: str = "cpu") -> None:
    """Gradients per weight of two, at once and one after the other."""
    x, _, weight, bias, halo = case(2, 5, 3)
    weights = torch.stack([weight, 2 * weight]).to(device)
    x, bias, halo = x.to(device), bias.to(device), patches.Halo(halo.rows.to(device))

    def slope(weight: torch.Tensor, kernels: bool) -> torch.Tensor:
        return torch.func.grad(lambda w: plain.halo_conv(x, w, bias, halo, kernels).square().sum())(weight)

    found = torch.func.vmap(lambda w: slope(w, kernels=True))(weights)
    truth = torch.stack([slope(each, kernels=False) for each in weights])
    tolerances.assert_close(found.cpu().numpy(), truth.cpu().numpy(), bound(case(2, 5, 3)), "vmap")


def test_under_vmap() -> None:
    with interpreted():
        assert_right_under_vmap()


@pytest.mark.gpu
@gpu
def test_under_vmap_on_this_gpu() -> None:
    assert_right_under_vmap("cuda")


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("side", [8, 7, 5, 4, 2, 1])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_the_kernels_on_this_gpu(side: int, dtype: str) -> None:
    for k in (3, 7):
        assert_right(case(side, 70, k, dtype), "cuda")


@pytest.mark.gpu
@gpu
@COMPILERS_OWN
def test_the_kernels_inside_a_compiled_whole() -> None:
    x, _, weight, bias, halo = given = case(8, 64, 7)
    there = [value.cuda() for value in (x, weight, bias)]
    found = torch.compile(plain.halo_conv, fullgraph=True)(*there, patches.Halo(halo.rows.cuda()), kernels=True)
    truth = plain._conv(x, weight, bias, halo)
    tolerances.assert_close(found.cpu().numpy(), truth.numpy(), bound(given), "compiled")


@pytest.mark.gpu
@gpu
@COMPILERS_OWN
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("engine", ["masked", "visible"])
def test_a_whole_model_on_this_gpu(engine: str, compiled: bool) -> None:
    truth = whole(engine=engine, kernels="plain")
    torch.compiler.reset()
    found = whole("cuda", compiled=compiled, engine=engine, kernels="triton")
    tolerances.assert_all_close(found, truth, WHOLE_BOUND, f"triton, {engine}")
