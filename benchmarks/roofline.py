"""The time that no implementation of a training step can beat, from the spec alone.

Every step of the model is bound by its arithmetic or by the bytes it must move, whichever
takes longer. Fusion is granted in full: a block, a convolution or a projection reads its
input and writes its output once in the forward pass, and in the backward pass reads both the
saved input and the incoming gradient and writes one; everything inside is recomputed on chip
for free, and so is what can be drawn into a neighbour (norms between stages, the mask token,
pooling). The loss reads predictions and pixels of removed patches and writes a gradient.
AdamW reads and writes parameters and both moments, and reads the gradient. Images are bytes.
"""

import math
from dataclasses import dataclass

import spec

BYTES = {"float32": 4, "bfloat16": 2, "float64": 8}
PARTS = {"encoder": ("encoder.",), "fcmae": ("",)}


@dataclass(frozen=True)
class Bound:
    """FLOPs and bytes of one step of the model over a whole batch, forward and backward."""

    name: str
    flops: int
    bytes: int

    def seconds(self, flops_per_s: float, bytes_per_s: float) -> float:
        return max(self.flops / flops_per_s, self.bytes / bytes_per_s)


def bounds(
    model: spec.Model,
    batch_size: int,
    *,
    visible: int | None = None,
    dtype: str = "float32",
    what: str = "step",
    part: str = "fcmae",
) -> list[Bound]:
    """A bound for each top-level step of the model, for the loss and for the optimizer.

    what: "forward", "gradient" (forward and backward) or "step" (an AdamW update too).
    visible: patches the encoder computes on; by default the spec's own number, or for a
    classifier (of 224 px) all. part: "encoder" alone, or the whole model.
    """
    if visible is None and isinstance(model, spec.FCMAE):
        visible = spec.visible_patches(model)
    table = spec.parameters(model)
    width, backward = BYTES[dtype], what != "forward"
    found, trained = [], 0
    steps = list(spec.step_sites(model, visible))
    for (name, macs), (_, step, sites) in zip(spec.step_macs(model, visible), steps, strict=True):
        if not name.startswith(PARTS[part]):
            continue
        weights = sum(math.prod(param.shape) for path, param in table.items() if f"{path}.".startswith(f"{name}."))
        trained += weights
        first = name == model.steps[0][0]
        read, written = (batch_size * sites * values for values in _moved(step))
        products = 1 + backward * (1 if first else 2)  # forward, by weights, by inputs: none by the image
        moved = width * weights * (3 if backward else 1)
        moved += (read * (1 if first else width) + width * written) * (2 if backward else 1)
        moved += 0 if first else backward * width * read
        found.append(Bound(name, 2 * products * batch_size * macs, moved))
    if part != "encoder":
        found.append(_loss(model, batch_size, visible, width, backward))
    if what == "step":
        found.append(Bound("AdamW", 12 * trained, 4 * 7 * trained))  # float32: p, m, v both ways, g in
    return found


def _loss(model: spec.Model, batch_size: int, visible: int | None, width: int, backward: bool) -> Bound:
    """Nine operations a removed value: three for its patch's mean and variance, and so on; the gradient takes two."""
    if isinstance(model, spec.Classifier):
        values = batch_size * model.num_classes
        return Bound("loss", 9 * values, values * (4 + width + width * backward))  # soft targets are float32
    removed = model.grid[0] * model.grid[1] - (visible or 0)
    values = batch_size * removed * model.patch_values
    return Bound("loss", (9 + 2 * backward) * values, values * (1 + width + width * backward))


def limit(found: list[Bound], tflops: float, gbps: float) -> float:
    """Seconds: the sum over steps of what bounds each."""
    return sum(bound.seconds(tflops * 1e12, gbps * 1e9) for bound in found)


def table(found: list[Bound], tflops: float, gbps: float, batch_size: int) -> str:
    """Stage by stage: FLOPs, bytes, the bound and what sets it."""
    rows: dict[str, list[Bound]] = {}
    for bound in found:
        rows.setdefault(_group(bound.name), []).append(bound)
    lines = [f"{'part':<28}{'GFLOP':>12}{'MB':>12}{'ms':>10}  bound by"]
    for name, group in rows.items():
        flops, moved = sum(b.flops for b in group), sum(b.bytes for b in group)
        by = "arithmetic" if flops / tflops / 1e12 > moved / gbps / 1e9 else "bytes"
        lines.append(
            f"{name:<28}{flops / 1e9:>12.1f}{moved / 1e6:>12.1f}{1e3 * limit(group, tflops, gbps):>10.3f}  {by}"
        )
    seconds = limit(found, tflops, gbps)
    total = sum(b.flops for b in found), sum(b.bytes for b in found)
    lines.append(f"{'all':<28}{total[0] / 1e9:>12.1f}{total[1] / 1e6:>12.1f}{1e3 * seconds:>10.3f}")
    lines.append(
        f"no implementation can do more than {batch_size / seconds:,.0f} images/s at {tflops:g} TFLOP/s, {gbps:g} GB/s"
    )
    return "\n".join(lines)


def _group(name: str) -> str:
    """encoder.stages.2.7 -> encoder.stages.2; every other step stands for itself."""
    parts = name.split(".")
    return ".".join(parts[:3]) if "stages" in parts or "downsample_layers" in parts else parts[0]


def _moved(step: spec.Step) -> tuple[int, int]:
    """Values that a step reads and writes for each site of its output; none where a neighbour can do its work."""
    match step:
        case spec.PatchConv():
            return step.size**2 * step.in_chans, step.out_chans
        case spec.Dense():
            return step.in_chans, step.out_chans
        case spec.Residual():
            last = step.body[-1][1]
            assert isinstance(last, spec.Dense)
            return last.out_chans, last.out_chans
        case _:
            return 0, 0
