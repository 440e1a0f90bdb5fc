"""What torch's own tools do with the modules: hooks, summaries, FSDP, casts and function transforms."""

import importlib.util
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import spec
from parity_tests import tolerances
from parity_tests.strategies import CASES

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402
from torch.func import functional_call, grad, vmap  # noqa: E402

from backends.torch import build, gradients, set_arrays  # noqa: E402
from backends.torch.depthwise import halo_conv  # noqa: E402
from backends.torch.norm import grn  # noqa: E402
from backends.torch.space.patches import Layout  # noqa: E402
from backends.torch.steps import Residual  # noqa: E402

CASE = CASES["equal widths"]
BOUND = tolerances.gradient("float64", CASE)
engines = pytest.mark.parametrize("engine", ["masked", "visible"])


def net_of(dtype: str = "float64") -> Any:
    net = build(CASE.model, dtype=dtype)
    set_arrays(net, CASE.arrays)
    return net


def inputs(dtype: Any = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(CASE.images).to(dtype), torch.from_numpy(CASE.mask)


def assert_same_gradients(found: dict[str, Tensor], engine: str) -> None:
    """They are those that the public function gives."""
    expected = gradients(net_of(), CASE.images, CASE.mask, engine=engine)
    arrays = {name: value.detach().numpy() for name, value in found.items()}
    tolerances.assert_all_close(arrays, expected, BOUND, engine)


def steps(net: nn.Module) -> dict[str, nn.Module]:
    """Every module inside the model that is called: blocks and leaves."""
    own = {name: module for name, module in net.named_modules() if type(module) is not nn.Module}
    return {name: module for name, module in own.items() if name}


@engines
def test_hooks_see_tensors(engine: str) -> None:
    net, forward, backward = net_of(), {}, {}
    for name, module in steps(net).items():
        module.register_forward_hook(lambda _, args, out, name=name: forward.update({name: (args[0], out)}))
        module.register_full_backward_hook(lambda _, dx, dy, name=name: backward.update({name: (dx[0], dy[0])}))
    images, mask = inputs()
    net(images.requires_grad_(), mask, engine=engine)["loss"].backward()
    assert forward.keys() == backward.keys() == steps(net).keys()
    for name, (x, out) in forward.items():
        y = out[0] if isinstance(out, tuple) else out
        dx, dy = backward[name]
        assert (dx.shape, dx.dtype) == (x.shape, x.dtype), name
        assert (dy.shape, dy.dtype) == (y.shape, y.dtype), name
        assert dy.any(), name
    assert_same_gradients({name: p.grad for name, p in net.named_parameters()}, engine)


def test_a_hook_may_change_what_a_step_returns() -> None:
    net = net_of()
    net.get_submodule("encoder.stages.1.0.norm").register_forward_hook(lambda _, args, out: torch.zeros_like(out))
    loss = net(*inputs())["loss"]
    assert loss.isfinite()
    assert loss != net_of()(*inputs())["loss"]


@pytest.mark.skipif(importlib.util.find_spec("torchinfo") is None, reason="torchinfo is not installed")
@engines
def test_torchinfo_summarises_the_model(engine: str) -> None:
    from torchinfo import summary

    found = summary(net_of("float32"), input_data=list(inputs(torch.float32)), engine=engine, depth=9, verbose=0)
    assert found.total_params == spec.count(CASE.model)
    assert {info.class_name for info in found.summary_list} >= {"Residual", "LayerNorm", "DepthwiseConv", "GRN"}


@pytest.fixture
def process_group() -> Iterator[None]:
    """One process, with gloo."""
    dist = torch.distributed
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@engines
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning", "ignore::FutureWarning")
def test_a_user_may_shard_the_blocks(engine: str, process_group: None) -> None:
    from torch.distributed.fsdp import fully_shard

    net = net_of()
    for module in net.modules():
        if isinstance(module, Residual):
            fully_shard(module)
    fully_shard(net)
    net(*inputs(), engine=engine)["loss"].backward()
    assert_same_gradients({name: p.grad.full_tensor() for name, p in net.named_parameters()}, engine)


@pytest.fixture
def all_warnings() -> Iterator[None]:
    """Every warning of torch, not only the first of a process, is an error."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    with warnings.catch_warnings(action="error"):
        yield
    torch.set_warn_always(before)


@engines
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_gradients_lie_in_the_buckets_of_ddp(
    engine: str, dtype: str, in_chans: int, process_group: None, all_warnings: None
) -> None:
    model = spec.fcmae(depths=(1, 1), dims=(4, 6), in_chans=in_chans, patch_size=4, image_size=12, decoder_dim=4)
    images, mask = torch.rand(2, 12, 12, in_chans), torch.arange(9).view(1, 3, 3).repeat(2, 1, 1) % 3 > 0
    net = build(model, dtype=dtype)
    copies = nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=True)
    for _ in range(2):  # DDP compares strides with those of its buckets from the second update on
        copies(images, mask, engine=engine)["loss"].backward()
        copies.zero_grad(set_to_none=False)
    alone = build(model, dtype=dtype)
    alone(images, mask, engine=engine)["loss"].backward()
    for name, p in alone.named_parameters():
        assert p.grad.stride() == p.stride(), name


@engines
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_a_cast_module_trains_in_its_new_type(engine: str, dtype: Any) -> None:
    net = net_of("float32").to(dtype)
    types: set[Any] = set()
    for module in steps(net).values():
        module.register_forward_hook(lambda _, args, out: types.add((out[0] if isinstance(out, tuple) else out).dtype))
    out = net(*inputs(torch.float32), engine=engine)
    out["loss"].backward()
    assert types == {dtype}
    assert out["loss"].dtype == torch.promote_types(dtype, torch.float32)
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in net.parameters())


def test_an_explicit_type_holds_whatever_the_parameters_are() -> None:
    net = net_of("bfloat16").double()
    assert net.dtype == torch.bfloat16
    assert net(*inputs())["prediction"].dtype == torch.bfloat16


def loss_of(net: nn.Module, engine: str) -> Any:
    """A function of named parameters and one image with its mask."""

    def loss(params: dict[str, Tensor], image: Tensor, mask: Tensor) -> Tensor:
        options = {"engine": engine, "visible": CASE.visible}
        return functional_call(net, params, (image[None], mask[None]), options)["loss"]

    return loss


@engines
def test_function_transforms_give_the_gradient(engine: str) -> None:
    net = net_of()
    params = {name: p.detach() for name, p in net.named_parameters()}

    def loss(params: dict[str, Tensor], *batch: Tensor) -> Tensor:
        return functional_call(net, params, batch, {"engine": engine, "visible": CASE.visible})["loss"]

    assert_same_gradients(grad(loss)(params, *inputs()), engine)


@engines
@pytest.mark.parametrize("scope", ["image", "batch"])
def test_vmap_gives_the_gradients_of_each_image(engine: str, scope: str) -> None:
    model = replace(CASE.model, encoder=replace(CASE.model.encoder, grn_scope=scope))
    net = build(model, dtype="float64")
    set_arrays(net, CASE.arrays)
    params, images = {name: p.detach() for name, p in net.named_parameters()}, inputs()
    found = vmap(grad(loss_of(net, engine)), in_dims=(None, 0, 0))(params, *images)
    for n in range(CASE.count):
        own = CASE.images[n : n + 1], CASE.mask[n : n + 1]
        expected = gradients(net, *own, engine=engine)
        arrays = {name: value[n].numpy() for name, value in found.items()}
        tolerances.assert_all_close(arrays, expected, BOUND, f"{engine}, image {n}")


def test_vmap_without_a_count_is_masked() -> None:
    net = net_of()
    found = vmap(lambda image, mask: net(image[None], mask[None])["loss"])(*inputs())
    expected = vmap(lambda image, mask: net(image[None], mask[None], engine="masked")["loss"])(*inputs())
    assert torch.equal(found, expected)


def test_second_derivatives_of_grn() -> None:
    """Its gradient depends on x and gamma through the norm, too."""
    torch.manual_seed(0)
    x, gamma, beta = (torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((2, 3, 4, 5), (5,), (5,)))

    def normalised(*arrays: Tensor) -> Tensor:
        return grn(arrays[0], (1, 2), *arrays[1:], 1e-6)

    assert gradcheck(normalised, (x, gamma, beta))
    assert gradgradcheck(normalised, (x, gamma, beta))


def test_second_derivatives_of_the_convolution_of_visible_patches() -> None:
    torch.manual_seed(0)
    layout = Layout.of(torch.tensor([[[0, 1], [0, 0]]]), 3)
    halo = layout.halo(2, 1)
    x, weight, bias = (
        torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((1, 3, 2, 2, 4), (4, 1, 3, 3), (4,))
    )
    assert gradgradcheck(lambda *arrays: halo_conv(*arrays, halo), (x, weight, bias))
