"""Compiled steps and graphed gradients change no update; blocks of one kind are compiled once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import spec
from backends.protocol import BackendError, Batch, Optimizer, TrainerOptions
from parity_tests import tolerances

torch = pytest.importorskip("torch")

from backends.torch import api, defaults, graphs, inference  # noqa: E402
from backends.torch.trainer import Trainer  # noqa: E402

COMPILERS_OWN = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
MODEL = spec.fcmae(depths=(2, 2), dims=(8, 12), image_size=24, mask_ratio=0.5, decoder_dim=8)
CLASSIFIER = spec.classifier(depths=(3, 3), dims=(8, 12), num_classes=3, drop_path=0.5)
CPU = TrainerOptions(dtype="float64", device="cpu")


def batch(seed: int, images: int = 2) -> Batch:
    rng = np.random.default_rng(seed)
    mask = (rng.random((images, 9)).argsort(1).argsort(1) >= 4).reshape(images, 3, 3).astype(np.uint8)
    return {"images": rng.integers(0, 255, (images, 24, 24, 3), dtype=np.uint8), "mask": mask}


def labelled(seed: int, images: int = 2) -> Batch:
    rng = np.random.default_rng(seed)
    return {
        "images": batch(seed, images)["images"],
        "targets": np.eye(3, dtype=np.float32)[rng.integers(0, 3, images)],
        "keep_paths": rng.integers(0, 2, (images, 6), dtype=np.uint8),
    }


def trained(model: spec.Model, updates: list[list[Batch]], options: TrainerOptions) -> dict[str, np.ndarray]:
    """Parameters after the updates, and the losses on the way."""
    trainer = Trainer(model, Optimizer(), options)
    losses = [float(trainer.step(batches, 1e-3)["loss"]) for batches in updates]
    state = trainer.export()
    assert state is not None
    return {**state.params, "losses": np.array(losses)}


@COMPILERS_OWN
@pytest.mark.parametrize(("model", "make", "kinds"), [(MODEL, batch, 3), (CLASSIFIER, labelled, 3)])
def test_blocks_of_one_kind_are_compiled_once(
    model: spec.Model, make: Callable[[int], Batch], kinds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kinds: two stages and the decoder; two stages, the first with a block that drop path never leaves out."""
    torch.compiler.reset()
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any, **options: Any) -> Any:
        graphs.append({node.target for node in graph.graph.nodes})
        return graph

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **options: compiler(*args, **options, backend=backend))
    updates = [[make(0)], [make(1)]]
    found = trained(model, updates, replace(CPU, compile=True))
    truth = trained(model, updates, CPU)
    assert len([each for each in graphs if torch.nn.functional.gelu in each]) == kinds
    tolerances.assert_all_close(found, truth, tolerances.TRAJECTORY["float64"], "compiled")


class Replay:
    """A CUDA graph's stand-in on CPU: replaying it computes again what was computed while it was recorded."""

    def __init__(self) -> None:
        self.work: Callable[[], None] = lambda: None

    def pool(self) -> int:
        return 0

    def replay(self) -> None:
        self.work()


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Replay]:
    """The graphs recorded, where `torch.cuda` has none."""
    replays: list[Replay] = []

    @contextmanager
    def graph(graph: Replay, pool: int | None = None) -> Iterator[None]:
        replays.append(graph)
        yield

    def record(self: Any, gradient: graphs.Gradient, adds: bool) -> Any:
        before = [None if p.grad is None else p.grad.clone() for p in self.parameters]
        made, loss = real(self, gradient, adds)
        written = list(self.gradients)
        if adds:  # recording computes nothing
            for p, value in zip(self.parameters, before, strict=True):
                p.grad.copy_(value)

        def work() -> None:
            start = [p.grad.clone() for p in self.parameters] if adds else [0.0 for _ in self.parameters]
            for p in self.parameters:
                p.grad = None
            loss.copy_(gradient(self.inputs))
            for p, value, first in zip(self.parameters, written, start, strict=True):
                value.copy_(first + p.grad)

        made.work = work
        return made, loss

    real = graphs.GraphedGradient._record
    monkeypatch.setattr(graphs.GraphedGradient, "_record", record)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Replay)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(defaults, "_not_recorded", lambda *args: None)
    return replays


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_graphs_change_no_update(micro_batches: int, recorded: list[Replay]) -> None:
    updates = [[batch(10 * update + i) for i in range(micro_batches)] for update in range(5)]
    updates[3] = [batch(30 + i, images=1) for i in range(micro_batches)]  # of another shape
    found = trained(MODEL, updates, replace(CPU, graphs=True))
    tolerances.assert_same(found, trained(MODEL, updates, CPU), "graphed")
    assert len(recorded) == min(micro_batches, 2)


def test_another_number_of_micro_batches_is_not_recorded(recorded: list[Replay]) -> None:
    """Its graph would write gradients that those of the first one are not added to."""
    counts = [1, 1, 1, 2, 2, 2, 1]
    updates = [[batch(10 * update + i) for i in range(count)] for update, count in enumerate(counts)]
    tolerances.assert_same(trained(MODEL, updates, replace(CPU, graphs=True)), trained(MODEL, updates, CPU), "graphed")
    assert len(recorded) == 1


def test_masks_of_different_counts_are_not_recorded(recorded: list[Replay]) -> None:
    """Their space is chosen by their values, which a graph cannot read."""
    other = batch(0)
    other["mask"][0] = 0
    updates = [[other]] * 3
    tolerances.assert_same(trained(MODEL, updates, replace(CPU, graphs=True)), trained(MODEL, updates, CPU), "masked")
    assert not recorded


@pytest.mark.gpu
@COMPILERS_OWN
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("model", "make"), [(MODEL, batch), (CLASSIFIER, labelled)])
def test_graphs_change_no_update_on_this_gpu(
    model: spec.Model,
    make: Callable[..., Batch],
    compiled: bool,
    micro_batches: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.compiler.reset()
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)  # its gradient of a stem varies from run to run
    options = TrainerOptions(device="cuda", compile=compiled, graphs=False)
    updates = [[make(10 * update + i) for i in range(micro_batches)] for update in range(5)]
    updates[3] = [make(30 + i, images=1) for i in range(micro_batches)]
    plain = trained(model, updates, options)
    tolerances.assert_same(trained(model, updates, replace(options, graphs=True)), plain, "graphed")


@pytest.mark.parametrize(
    ("options", "device", "processes", "chosen"),
    [
        (TrainerOptions(), "cpu", 1, defaults.Execution(False, False, False)),
        (TrainerOptions(), "cuda", 1, defaults.Execution(True, True, True)),
        (TrainerOptions(), "cuda", 8, defaults.Execution(True, True, False)),
        (TrainerOptions(shard=True), "cuda", 8, defaults.Execution(True, False, False)),
        (TrainerOptions(kernels="plain", graphs=False), "cuda", 1, defaults.Execution(False, True, False)),
        (TrainerOptions(engine="masked"), "cuda", 1, defaults.Execution(False, True, True)),
        (TrainerOptions(compile=True), "cpu", 1, defaults.Execution(False, True, False)),
    ],
)
def test_the_device_decides(
    options: TrainerOptions, device: str, processes: int, chosen: defaults.Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defaults.importlib.util, "find_spec", lambda name: object())
    assert defaults.resolve(options, device, processes) == chosen


def test_without_triton_the_plain_form_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults.importlib.util, "find_spec", lambda name: None)
    assert defaults.resolve(TrainerOptions(), "cuda") == defaults.Execution(False, False, False, missing=True)


def test_what_is_written_for_cuda_leaves_rocm_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch's devices are called cuda."""
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert defaults.resolve(TrainerOptions(), "cuda") == defaults.Execution(False, False, False)
    for options in (TrainerOptions(kernels="triton"), TrainerOptions(graphs=True)):
        with pytest.raises(BackendError, match="do not run on ROCm"):
            defaults.resolve(options, "cuda")


def test_the_log_says_what_is_used_and_what_overrides_it() -> None:
    every = "Triton kernels, compiled steps, CUDA graphs, the fastest on CUDA"
    flags = "--kernels plain, --compile False, --cuda_graphs False"
    assert str(defaults.Execution(True, True, True)) == f"{every} (override: {flags})"
    assert str(defaults.Execution(False, True, False)) == "compiled steps (override: --compile False)"
    assert str(defaults.Execution(False, False, False)) == "plain kernels, eager steps"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (TrainerOptions(graphs=True), "graphs: CUDA graphs do not run on cpu; leave --cuda_graphs away"),
        (TrainerOptions(kernels="triton"), "kernels: 'triton': they do not run on cpu"),
        (TrainerOptions(kernels="triton", engine="masked"), "kernels: 'triton' convolve visible patches"),
        (TrainerOptions(compile=True, engine="minkowski"), "compile: engine 'minkowski' goes through no compiler"),
    ],
)
def test_what_cannot_be_is_refused(options: TrainerOptions, line: str) -> None:
    with pytest.raises(BackendError, match=line):
        defaults.resolve(options, "cpu")


def test_inference_without_cuda_is_refused() -> None:
    with pytest.raises(BackendError, match="images: on cpu, and CUDA graphs need a CUDA device"):
        inference.record_inference(api.build(CLASSIFIER), torch.rand(2, 24, 24, 3))


def test_images_of_another_shape_than_recorded_are_refused(
    recorded: list[Replay], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, stand_in in (("on_cuda", lambda device: True), ("compile_steps", lambda net: None)):
        monkeypatch.setattr(inference, name, stand_in)
    net, images = api.build(CLASSIFIER), torch.rand(2, 24, 24, 3)
    call = inference.record_inference(net, images)
    found = {name: api.to_host(value) for name, value in call(images).items()}
    tolerances.assert_same(found, api.forward(net, api.to_host(images)), "recorded")
    with pytest.raises(BackendError, match=r"images: .*1, 24, 24, 3.* is not .*2, 24, 24, 3.*, which was recorded"):
        call(images[:1])
    assert len(recorded) == 1
