"""One process that times one engine of one backend, a step whenever it is told to.

The parent keeps a worker for every row of its table and asks them in turn, so that a
machine whose speed drifts slows all rows alike. Speaks JSON, one object a line.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import spec
from backends.protocol import Batch


def main() -> None:
    """Build the job given on the first line, report its memory, then answer each line with seconds."""
    job = json.loads(sys.stdin.readline())
    prepare = _torch if job["backend"] == "torch" else _jax
    started = time.perf_counter()
    run, memory = prepare(job, *inputs(job))
    run()
    ready = {"first_step_s": time.perf_counter() - started}
    run()
    with_peak = memory(run)
    print(json.dumps(ready | {"peak_bytes": with_peak}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        run()
        print(time.perf_counter() - started, flush=True)


def inputs(job: dict[str, Any], model: spec.FCMAE | None = None) -> tuple[spec.FCMAE, Batch]:
    """The model, of the job's preset unless it is given, and one batch of random images and exact-K masks.

    A mask ratio of 0, which no autoencoder can have, shows its encoder every patch.
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


Run = Callable[[], object]
Prepared = tuple[Run, Callable[[Run], int]]


def _torch(job: dict[str, Any], model: spec.FCMAE, batch: Batch) -> Prepared:
    import torch

    from backends import torch as backend

    device = job["device"] or "cpu"
    if job["what"] == "step":
        trainer = backend.Trainer(model, _optimizer(), dtype=job["dtype"], engine=job["engine"], device=device)

        def work() -> None:
            float(trainer.step([batch], 1e-4)["loss"])

    else:
        net = backend.build(model, dtype=job["dtype"], device=device)
        images, mask = (torch.from_numpy(batch[name]).to(device) for name in ("images", "mask"))
        part = part_of(net, job["part"], job["engine"], _visible(batch))
        call = torch.compile(part, fullgraph=True) if job["compiled"] else part

        def work() -> None:
            with torch.set_grad_enabled(job["what"] == "gradient"):
                loss = call(images, mask)
            if job["what"] == "gradient":
                net.zero_grad(set_to_none=True)
                loss.backward()
            loss.item()

    if device == "cpu":
        return work, _peak_resident()

    def peak(run: Run) -> int:
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated()

    return work, peak


def _jax(job: dict[str, Any], model: spec.FCMAE, batch: Batch) -> Prepared:
    import jax
    from flax import nnx

    from backends.jax import Trainer, door

    dtype = job["dtype"]
    if job["what"] == "step":
        trainer = Trainer(model, _optimizer(), dtype=dtype, engine=job["engine"], device=job["device"])
        return lambda: float(trainer.step([batch], 1e-4)["loss"]), _peak_resident()
    with door.precision(dtype):
        net = door.build(model, dtype=dtype, device=job["device"])
        graph, params = nnx.graphdef(net), door.flat(net)
        images, mask = jax.device_put(batch["images"]), jax.device_put(batch["mask"])

        def loss(params: Any, images: Any, mask: Any) -> Any:  # as arguments: XLA would fold constants away
            return part_of(door.bind(graph, params), job["part"], job["engine"], _visible(batch))(images, mask)

        function = jax.jit(jax.value_and_grad(loss) if job["what"] == "gradient" else loss)
        compiled = function.lower(params, images, mask).compile()
    sizes: Any = compiled.memory_analysis()
    total = sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    return lambda: jax.block_until_ready(compiled(params, images, mask)), lambda _: total


def _visible(batch: Batch) -> int:
    return int((batch["mask"][0] == 0).sum())


def part_of(net: Any, part: str, engine: str, visible: int | None = None) -> Callable[[Any, Any], Any]:
    """(images, mask) -> the FCMAE loss, or the sum of what the encoder alone gives."""
    if part == "encoder":
        return lambda images, mask: net.encode(images, mask, engine=engine, visible=visible).grid().sum()
    return lambda images, mask: net(images, mask, engine=engine, visible=visible)["loss"]


def _optimizer() -> Any:
    from backends.protocol import Optimizer

    return Optimizer()


def _peak_resident() -> Callable[[Run], int]:
    """A meter of the process's high-water mark during a run, above what it holds now, before the first."""
    before = _status("VmRSS")

    def meter(run: Run) -> int:
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
        run()
        return _status("VmHWM") - before

    return meter


def _status(field: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


if __name__ == "__main__":
    main()
