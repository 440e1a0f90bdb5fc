"""The least time of a training step on a device, from the spec alone.

Each step of the model is bound by its arithmetic or by the bytes it must move, whichever takes
longer. Perfect fusion is assumed: a block, a convolution or a projection reads its input and
writes its output once in the forward pass; in the backward pass it reads the saved input and
the incoming gradient and writes one gradient. Everything inside is recomputed on chip for free,
and so is what a neighbour can absorb (norms between stages, the mask token, pooling). The loss
reads predictions, made at removed patches alone, and their pixels, and writes a gradient. AdamW reads and writes
parameters and both moments, and reads the gradient. Images are uint8.
"""

import math
from dataclasses import dataclass

import spec
from spec import console

BYTES = {"float32": 4, "bfloat16": 2, "float64": 8}
PARTS = {"encoder": ("encoder.",), "fcmae": ("",)}


@dataclass(frozen=True)
class Bound:
    """FLOPs and bytes of one step of the model for a whole batch, forward and backward."""

    name: str
    flops: int
    bytes: int

    def seconds(self, flops_per_s: float, bytes_per_s: float) -> float:
        return max(self.flops / flops_per_s, self.bytes / bytes_per_s)


def bounds(
    model: spec.Classifier | spec.FCMAE,
    batch_size: int,
    *,
    visible: int | None = None,
    dtype: str = "float32",
    what: str = "step",
    part: str = "fcmae",
) -> list[Bound]:
    """One bound per top-level step of the model, then the loss and the optimizer.

    what: "forward", "gradient" (forward and backward) or "step" (an AdamW update too).
    visible: number of patches the encoder computes; by default the spec's, or for a classifier
    (at 224 px) all. part: "encoder" alone, or the whole model.
    """
    if visible is None and isinstance(model, spec.FCMAE):
        visible = spec.visible_patches(model)
    patches = math.prod(model.grid) if isinstance(model, spec.FCMAE) else 1
    table = spec.parameters(model)
    width, backward = BYTES[dtype], what != "forward"
    found, trained = [], 0
    steps = list(spec.step_sites(model, visible))
    for (name, macs), (_, step, sites) in zip(spec.step_macs(model, visible), steps, strict=True):
        if not name.startswith(PARTS[part]):
            continue
        if name == "pred" and visible is not None:  # at removed patches alone, which the loss reads
            macs, sites = (count * (patches - visible) // patches for count in (macs, sites))
        weights = sum(math.prod(param.shape) for path, param in table.items() if f"{path}.".startswith(f"{name}."))
        trained += weights
        first = name == model.steps[0][0]
        read, written = (batch_size * sites * values for values in _moved(step))
        products = 1 + backward * (
            1 if first else 2
        )  # forward, gradient by weights, gradient by inputs (none by the images)
        moved = width * weights * (3 if backward else 1)
        moved += (read * (1 if first else width) + width * written) * (2 if backward else 1)
        moved += 0 if first else backward * width * read
        found.append(Bound(name, 2 * products * batch_size * macs, moved))
    if part != "encoder":
        found.append(_loss(model, batch_size, visible, width, backward))
    if what == "step":
        found.append(Bound("AdamW", 12 * trained, 4 * 7 * trained))  # float32: p, m, v both ways, g in
    return found


def _loss(
    model: spec.Classifier | spec.FCMAE, batch_size: int, visible: int | None, width: int, backward: bool
) -> Bound:
    """Nine operations per removed value (three of them for its patch's mean and variance); the gradient takes two."""
    if isinstance(model, spec.Classifier):
        values = batch_size * model.num_classes
        return Bound("loss", 9 * values, values * (4 + width + width * backward))  # soft targets are float32
    removed = model.grid[0] * model.grid[1] - (visible or 0)
    values = batch_size * removed * model.patch_values
    return Bound("loss", (9 + 2 * backward) * values, values * (1 + width + width * backward))


def limit(found: list[Bound], tflops: float, gbps: float) -> float:
    """The sum of the bounds, in seconds."""
    return sum(bound.seconds(tflops * 1e12, gbps * 1e9) for bound in found)


def table(found: list[Bound], tflops: float, gbps: float, batch_size: int) -> str:
    """One row per stage: FLOPs, bytes, the bound and what sets it."""
    rows: dict[str, list[Bound]] = {}
    for bound in found:
        rows.setdefault(_group(bound.name), []).append(bound)
    lines = [["part", "GFLOP", "MB", "ms", "bound by"]]
    for name, group in [*rows.items(), ("all", found)]:
        flops, moved = sum(b.flops for b in group), sum(b.bytes for b in group)
        by = "arithmetic" if flops / tflops / 1e12 > moved / gbps / 1e9 else "bytes"
        seconds = limit(group, tflops, gbps)
        lines.append([name, f"{flops / 1e9:.1f}", f"{moved / 1e6:.1f}", f"{1e3 * seconds:.3f}", by])
    lines[-1][-1] = ""
    most = f"at most {batch_size / seconds:,.0f} images/s at {tflops:g} TFLOP/s and {gbps:g} GB/s"
    return f"{console.table(lines, '<>>><')}\n{most}"


def _group(name: str) -> str:
    """encoder.stages.2.7 -> encoder.stages.2; the decoder is one group, other steps are their own."""
    parts = name.split(".")
    return ".".join(parts[:3]) if "stages" in parts or "downsample_layers" in parts else parts[0]


def _moved(step: spec.Step) -> tuple[int, int]:
    """Values that a step reads and writes per site of its output; none if a neighbour can absorb it."""
    match step:
        case spec.PatchConv():
            return step.size**2 * step.in_chans, step.out_chans
        case spec.Dense():
            return step.in_chans, step.out_chans
        case spec.Residual():
            channels = next(part.channels for _, part in step.body if isinstance(part, spec.DepthwiseConv))
            return channels, channels
        case _:
            return 0, 0
