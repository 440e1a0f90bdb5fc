"""The time that no implementation of a pre-training step can beat, from the spec alone.

Every step of the model is bound by its arithmetic or by the bytes it must move, whichever
takes longer. Fusion is granted in full: a block reads its input and writes its output once
in the forward pass, and in the backward pass reads both the saved input and the incoming
gradient and writes one; everything inside is recomputed on chip for free. AdamW reads and
writes parameters and both moments, and reads the gradient.
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
    model: spec.FCMAE,
    batch_size: int,
    *,
    visible: int | None = None,
    dtype: str = "float32",
    what: str = "step",
    part: str = "fcmae",
) -> list[Bound]:
    """A bound for each top-level step of the model, and for the optimizer.

    what: "forward", "gradient" (forward and backward) or "step" (an AdamW update too).
    visible: patches the encoder computes on; the spec's own number by default.
    """
    kept = spec.visible_patches(model) if visible is None else visible
    table = spec.parameters(model)
    passes = {"forward": 1, "gradient": 3, "step": 3}[what]  # products: forward, by inputs, by weights
    moves = {"forward": 2, "gradient": 5, "step": 5}[what]  # in, out; saved in, gradient in, gradient out
    found, trained = [], 0
    steps = list(spec.step_sites(model, kept))
    for (name, macs), (_, step, sites) in zip(spec.step_macs(model, kept), steps, strict=True):
        if not name.startswith(PARTS[part]):
            continue
        weights = sum(math.prod(param.shape) for path, param in table.items() if f"{path}.".startswith(f"{name}."))
        trained += weights
        first = passes - 1 if name == model.steps[0][0] and passes > 1 else passes  # no gradient by the image
        moved = BYTES[dtype] * (batch_size * sites * _channels(step) * moves + weights * passes)
        found.append(Bound(name, 2 * first * batch_size * macs, moved))
    if what == "step":
        found.append(Bound("AdamW", 12 * trained, 4 * 7 * trained))  # float32: p, m, v both ways, g in
    return found


def limit(found: list[Bound], tflops: float, gbps: float) -> float:
    """Seconds: the sum over steps of what bounds each."""
    return sum(bound.seconds(tflops * 1e12, gbps * 1e9) for bound in found)


def table(model: spec.FCMAE, found: list[Bound], tflops: float, gbps: float, batch_size: int) -> str:
    """Stage by stage: FLOPs, bytes, the bound and what sets it."""
    rows: dict[str, list[Bound]] = {}
    for bound in found:
        rows.setdefault(_group(bound.name), []).append(bound)
    lines = [f"{'part':<22}{'GFLOP':>12}{'MB':>12}{'ms':>10}  bound by"]
    for name, group in rows.items():
        flops, moved = sum(b.flops for b in group), sum(b.bytes for b in group)
        by = "arithmetic" if flops / tflops / 1e12 > moved / gbps / 1e9 else "bytes"
        lines.append(
            f"{name:<22}{flops / 1e9:>12.1f}{moved / 1e6:>12.1f}{1e3 * limit(group, tflops, gbps):>10.3f}  {by}"
        )
    seconds = limit(found, tflops, gbps)
    total = sum(b.flops for b in found), sum(b.bytes for b in found)
    lines.append(f"{'all':<22}{total[0] / 1e9:>12.1f}{total[1] / 1e6:>12.1f}{1e3 * seconds:>10.3f}")
    lines.append(
        f"no implementation can do more than {batch_size / seconds:,.0f} images/s at {tflops:g} TFLOP/s, {gbps:g} GB/s"
    )
    return "\n".join(lines)


def _group(name: str) -> str:
    """encoder.stages.2.7 -> encoder.stages.2; every other step stands for itself."""
    parts = name.split(".")
    return ".".join(parts[:3]) if "stages" in parts or "downsample_layers" in parts else parts[0]


def _channels(step: spec.Step) -> int:
    """Channels of a step's output."""
    match step:
        case spec.PatchConv() | spec.Dense():
            return step.out_chans
        case spec.Residual():
            return _channels(step.body[-1][1])
        case spec.LayerNorm() | spec.FillRemoved():
            return step.channels
    raise AssertionError(step)
