"""A process that times one engine of one backend, one step per request.

The parent keeps one worker per row and asks them in turn, so that a machine whose speed drifts
slows all rows alike. Messages are JSON, one object per line.
"""

import ctypes
import json
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

import spec
from backends.protocol import Batch, Optimizer, Trainer, TrainerOptions
from benchmarks import profiles


def main() -> None:
    """Read the job from the first line of stdin, prepare it and serve it."""
    job = json.loads(sys.stdin.readline())
    prepare = {"torch": _torch, "jax": _jax, "timm": _timm}[job["backend"]]
    serve(job, *prepare(job, *_given(job)))


def _given(job: dict[str, Any]) -> tuple[Any, Batch]:
    """The model of a job and a batch for it."""
    model, batch = inputs(job)
    if job["part"] != "classifier":
        return model, batch
    targets = np.eye(CLASSES, dtype=np.float32)[np.arange(job["batch_size"]) % CLASSES]
    return spec.classifier(job["model"], num_classes=CLASSES), {"images": batch["images"], "targets": targets}


def inputs(job: dict[str, Any], model: spec.FCMAE | None = None) -> tuple[spec.FCMAE, Batch]:
    """The model (the job's preset by default) and a batch of random images and masks with K visible patches.

    A mask ratio of 0, which the spec refuses, means that every patch is visible.
    """
    ratio = {"mask_ratio": job["mask_ratio"]} if job["mask_ratio"] else {}
    model = model or spec.fcmae(job["model"], image_size=job["image_size"], **ratio)
    rng = np.random.default_rng(0)
    n, patches = job["batch_size"], model.grid[0] * model.grid[1]
    images = rng.standard_normal((n, *model.image_size, model.encoder.in_chans), dtype=np.float32)
    ranks = rng.random((n, patches)).argsort(1).argsort(1)
    kept = spec.visible_patches(model) if ratio else patches
    mask = (ranks >= kept).reshape(n, *model.grid).astype(np.uint8)
    return model, {"images": images, "mask": mask}


CLASSES = 1000

Run = Callable[[], object]
Prepared = tuple[Run, Callable[[Run], int]]


def serve(job: dict[str, Any], run: Run, memory: Callable[[Run], int]) -> None:
    """Report the first step's seconds and the memory, then answer each line of stdin with the seconds of one step."""
    started = time.perf_counter()
    run()
    ready = {"first_step_s": time.perf_counter() - started}
    run()
    with_peak = memory(run)
    print(json.dumps(ready | {"peak_bytes": with_peak}), flush=True)
    for line in sys.stdin:
        if line.strip() == "profile":
            print(json.dumps(profiles.of(job["backend"], run)), flush=True)
            continue
        started = time.perf_counter()
        run()
        print(time.perf_counter() - started, flush=True)


def _torch(job: dict[str, Any], model: spec.FCMAE, batch: Batch) -> Prepared:
    import torch

    from backends import torch as backend

    device = job["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    if job["what"] == "step":
        named = {"dtype": job["dtype"], "engine": job["engine"], "device": device, "compile": job["compiled"]}
        options = TrainerOptions(**named, graphs=job.get("graphs", False))
        trainer = backend.Trainer(model, Optimizer(), options)
        return _steps(trainer, batch), torch_memory(device)
    net = backend.build(model, dtype=job["dtype"], device=device)
    if job["part"] == "classifier":
        from backends.torch.inference import record_inference

        net = net.to(getattr(torch, job["dtype"]))
        return _inference(job, net, record_inference, batch["images"], device), torch_memory(device)
    images, mask = (torch.from_numpy(batch[name]).to(device) for name in ("images", "mask"))
    part = part_of(net, job["part"], job["engine"], _visible(batch))
    return passes(job, net, part, (images, mask)), torch_memory(device)


def _timm(job: dict[str, Any], model: spec.FCMAE, batch: Batch) -> Prepared:
    """timm's encoder of the same name, which has no mask: all patches of the same images."""
    import torch

    from benchmarks import outside

    device = job["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    if job["what"] == "step":
        return _timm_step(job, batch, device), torch_memory(device)
    where: Any = {"device": device, "dtype": getattr(torch, job["dtype"])}
    net = outside.timm().create_model(job["model"], num_classes=CLASSES if job["part"] == "classifier" else 0)
    net = net.to(**where, memory_format=torch.channels_last)
    if job["part"] == "classifier":
        channels_first = np.moveaxis(batch["images"], -1, 1)
        graphed = partial(torch.compile, mode="reduce-overhead")
        return _inference(job, net.eval(), lambda net, _: graphed(net), channels_first, device), torch_memory(device)
    images = torch.from_numpy(batch["images"]).to(**where).permute(0, 3, 1, 2)  # a channels_last view
    return passes(job, net, lambda x: net.forward_features(x).sum(), (images,)), torch_memory(device)


def _timm_step(job: dict[str, Any], batch: Batch, device: str) -> Run:
    """Training steps of timm's classifier from uint8 images on the host: autocast, and AdamW fused."""
    import torch

    from benchmarks import outside

    net = outside.timm().create_model(job["model"], num_classes=CLASSES)
    net = net.to(device, memory_format=torch.channels_last)
    compiled = device != "cpu" if job["compiled"] is None else job["compiled"]  # None: by the device, as ours
    call = torch.compile(net) if compiled else net
    adamw = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    host = [torch.from_numpy(array) for array in (_uint8(batch["images"]), batch["targets"])]
    host = [tensor.pin_memory() for tensor in host] if device != "cpu" else host

    def work() -> float:
        images, targets = (tensor.to(device, non_blocking=True) for tensor in host)
        with torch.autocast(torch.device(device).type, getattr(torch, job["dtype"])):
            loss = torch.nn.functional.cross_entropy(call(images.permute(0, 3, 1, 2) / 255), targets)
        loss.backward()
        adamw.step()
        adamw.zero_grad()
        return loss.item()

    return work


def _inference(
    job: dict[str, Any], net: Any, record: Callable[[Any, Any], Any], images: np.ndarray, device: str
) -> Run:
    """Logits of images on the device; on CUDA compiled and as a CUDA graph, which `record` makes."""
    import torch

    x = torch.from_numpy(images).to(device, getattr(torch, job["dtype"]))
    call = record(net, x) if x.is_cuda else net

    def work() -> float:
        with torch.no_grad():
            found = call(x)
        logits = found["logits"] if isinstance(found, dict) else found
        return float(logits.sum())  # waits for the device

    return work


def passes(job: dict[str, Any], net: Any, part: Callable[..., Any], args: tuple[Any, ...]) -> Run:
    """Forward, and backward if the job is the gradient."""
    import torch

    call = torch.compile(part, fullgraph=True) if job["compiled"] else part

    def work() -> None:
        with torch.set_grad_enabled(job["what"] == "gradient"):
            loss = call(*args)
        if job["what"] == "gradient":
            net.zero_grad(set_to_none=True)
            loss.backward()
        loss.item()  # waits for the device

    return work


def torch_memory(device: str) -> Callable[[Run], int]:
    """A function that returns the peak bytes of a run: the allocator's, on CPU the growth of the process."""
    import torch

    if device == "cpu":
        return _peak_resident()

    def peak(run: Run) -> int:
        run()
        return torch.cuda.max_memory_allocated()

    return peak


def _jax(job: dict[str, Any], model: spec.FCMAE, batch: Batch) -> Prepared:
    import jax
    from flax import nnx

    from backends import jax as backend
    from backends.jax import api
    from backends.jax.compilation import compiler_options

    backend.use_compilation_cache()  # in the folder that the environment names
    dtype = job["dtype"]
    if job["what"] == "step":
        options = TrainerOptions(dtype=dtype, engine=job["engine"], device=job["device"])
        trainer = backend.Trainer(model, Optimizer(), options)
        return _steps(trainer, batch), _jax_memory()
    with api.precision(dtype):
        net = api.build(model, dtype=dtype, device=job["device"])
        graph, params = nnx.graphdef(net), api.flat(net)
        images, mask = jax.device_put((batch["images"], batch.get("mask")))
    if job["part"] == "classifier":  # inference, with weights in its own type
        params, images = jax.tree.map(lambda array: array.astype(dtype), (params, images))

    def loss(params: Any, images: Any, mask: Any) -> Any:  # as arguments: XLA would fold constants away
        return part_of(api.bind(graph, params), job["part"], job["engine"], _visible(batch))(images, mask)

    @cache
    def compiled() -> Any:
        with api.precision(dtype):
            options = compiler_options(jax.default_backend())
            function = jax.value_and_grad(loss) if job["what"] == "gradient" else loss
            return jax.jit(function, compiler_options=options).lower(params, images, mask).compile()

    def memory(run: Run) -> int:
        sizes = compiled().memory_analysis()
        return int(sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes)

    return lambda: jax.block_until_ready(compiled()(params, images, mask)), memory


def _jax_memory() -> Callable[[Run], int]:
    """The allocator's peak since the process started; on CPU, which has none, the growth during a step.

    The compiler leaves freed memory behind that would hide the growth, so it is given back first.
    """
    import jax

    device = jax.local_devices()[0]
    if device.memory_stats() is None:

        def above(run: Run) -> int:
            _trim()
            return _peak_resident()(run)

        return above

    def peak(run: Run) -> int:
        run()
        return int(device.memory_stats()["peak_bytes_in_use"])

    return peak


def _steps(trainer: Trainer, batch: Batch) -> Run:
    """Training steps from uint8 images on the host, as in training."""
    shipped: Batch = {**batch, "images": _uint8(batch["images"])}
    return lambda: float(trainer.step([shipped], 1e-4)["loss"])


def _uint8(images: np.ndarray) -> np.ndarray:
    return np.clip(128 + 64 * images, 0, 255).astype(np.uint8)


def _visible(batch: Batch) -> int | None:
    return int((batch["mask"][0] == 0).sum()) if "mask" in batch else None


def part_of(net: Any, part: str, engine: str | None, visible: int | None = None) -> Callable[[Any, Any], Any]:
    """(images, mask) -> the FCMAE loss, or the sum of the encoder's features or of a classifier's logits."""
    if part == "classifier":
        return lambda images, mask: net(images, mask, engine=engine)["logits"].sum()
    if part == "fcmae":
        return lambda images, mask: net(images, mask, engine=engine, visible=visible, loss_only=True)["loss"]

    def features(images: Any, mask: Any) -> Any:
        x, space = net.encode(images, mask, engine=engine, visible=visible)
        return space.grid(x).sum()

    return features


def _peak_resident() -> Callable[[Run], int]:
    """A function that returns the peak resident memory during a run minus that of now."""
    before = _status("VmRSS")

    def growth(run: Run) -> int:
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
        run()
        return _status("VmHWM") - before

    return growth


def _trim() -> None:
    """Make glibc's allocator return free memory to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def _status(field: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


if __name__ == "__main__":
    main()
