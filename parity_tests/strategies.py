"""What the laws are tested on: random specs, images, masks and parameters, each case reproducible from its repr.

A `Case` is five small facts and a seed; arrays are computed from them, so hypothesis shrinks
and prints cases, not arrays. `CASES` is the fixed set that every mutant is tried on.
Models are tiny, because a JAX compile costs more than all the arithmetic here.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st

import spec
from backends.initial import initial_arrays

Pixels = Literal["normal", "dyadic", "constant", "dark"]
Weights = Literal["unit", "fresh", "dead", "offset"]
Masking = Literal["scattered", "bottom", "right"]

SCOPES = ("image", "batch", "grid")

OFFSET = 2.0**12
"""A stem bias beside which channels differ by ones: its square takes the digits of a fast variance."""


@dataclass(frozen=True)
class Case:
    """A model, with everything that it is tested on. Values are float32 numbers, held in float64."""

    model: spec.Model
    grid: tuple[int, int]
    visible: int  # K; all patches = no mask
    count: int = 2  # N
    pixels: Pixels = "normal"
    weights: Weights = "unit"
    masking: Masking = "scattered"
    seed: int = 0

    @cached_property
    def images(self) -> np.ndarray:
        """(N, H, W, C), of the kind that `pixels` names."""
        side, chans = self.model.encoder.patch_size, self.model.encoder.in_chans
        shape = (self.count, self.grid[0] * side, self.grid[1] * side, chans)
        rng = np.random.default_rng([self.seed, 1])
        match self.pixels:
            case "normal":
                return _float32(rng.normal(size=shape))
            case "dyadic":  # eighths: sums and means of them are exact
                return rng.integers(-16, 17, shape) / 8.0
            case "constant":
                return np.broadcast_to(rng.integers(-4, 5, (self.count, 1, 1, 1)) / 4.0, shape).copy()
            case "dark":  # the last channel is exactly 0
                return _float32(rng.normal(size=shape)) * (np.arange(chans) < chans - 1)

    @cached_property
    def mask(self) -> np.ndarray | None:
        """(N, G_h, G_w) uint8, 1 = removed, K zeros per image; None when every patch is visible."""
        rows, columns = self.grid
        total = rows * columns
        if self.visible == total:
            return None
        rng = np.random.default_rng([self.seed, 2])
        orders = {
            "scattered": lambda: rng.permutation(total),
            "bottom": lambda: np.arange(total),
            "right": lambda: np.arange(total).reshape(columns, rows).T.ravel(),
        }
        ranks = np.stack([orders[self.masking]() for _ in range(self.count)])
        return (ranks >= self.visible).astype(np.uint8).reshape(self.count, rows, columns)

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Canonical name -> values of unit scale, none zero where that would hide a mistake."""
        if self.weights == "fresh":
            return {name: _float32(a) for name, a in initial_arrays(self.model, self.seed).items()}
        rng = np.random.default_rng([self.seed, 3])
        arrays = {name: _float32(_unit(rng, param)) for name, param in spec.parameters(self.model).items()}
        for name, array in arrays.items():
            if self.weights == "dead" and ".pwconv1." in name:
                array[::2] = 0  # every second channel of GRN's input is exactly 0
            if self.weights == "offset" and name.endswith("downsample_layers.0.0.bias"):
                array += OFFSET
        return arrays

    @property
    def steps(self) -> int:
        """The number of leaf steps and sums, which sets the tolerance."""
        return _leaves(self.model.steps)

    @property
    def condition(self) -> float:
        """How many roundings of its input one rounding of a step can be worth: mean over deviation, in a LayerNorm."""
        return OFFSET if self.weights == "offset" else 1.0


def _unit(rng: np.random.Generator, param: spec.Param) -> np.ndarray:
    noise = rng.normal(size=param.shape)
    match param.init:
        case spec.Draw("normal"):
            return noise
        case spec.Draw():
            return noise / np.sqrt(np.prod(param.shape[1:]))
        case 1.0:
            return 1 + 0.3 * noise
        case float():
            return 0.5 * noise


def _float32(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(np.float64)


def _leaves(steps: spec.Named) -> int:
    return sum(1 + _leaves(step.body) if isinstance(step, spec.Residual) else 1 for _, step in steps)


def ratio(total: int, visible: int) -> float:
    """A mask ratio that keeps `visible` of `total` patches, far from the float trap."""
    return (total - visible - 0.5) / total


@st.composite
def sizes(draw: st.DrawFn, blocks: tuple[str, ...] = ("v2", "v1")) -> dict[str, Any]:
    """The fields that a classifier and an FCMAE share."""
    block = draw(st.sampled_from(blocks), label="block")
    stages = draw(st.integers(1, 4), label="stages")
    deep = draw(st.integers(0, stages - 1), label="the stage with two blocks") if stages < 4 else None
    return {
        "depths": tuple(1 + (stage == deep) for stage in range(stages)),
        "dims": tuple(draw(st.integers(8, 14), label=f"dims[{stage}]") for stage in range(stages)),
        "in_chans": draw(st.integers(1, 4), label="in_chans"),
        "stem_stride": draw(st.sampled_from((1, 2, 4)), label="stem_stride"),
        "block": block,
        "norm_eps": draw(st.sampled_from((1e-6, 1e-5)), label="norm_eps"),
        "dwconv_bias": draw(st.booleans(), label="dwconv_bias"),
        "grn_scope": draw(st.sampled_from(SCOPES if block == "v2" else SCOPES[:1]), label="grn_scope"),
    }


@st.composite
def grids(draw: st.DrawFn) -> tuple[int, int]:
    """Rows and columns of patches, at least two patches in all."""
    rows = draw(st.integers(1, 4), label="rows")
    return rows, draw(st.integers(2 if rows == 1 else 1, 4), label="columns")


@st.composite
def fcmae_cases(draw: st.DrawFn) -> Case:
    """Masked autoencoders: from one visible patch to all but one, batch 1 included."""
    fields = draw(sizes())
    rows, columns = draw(grids())
    patch, total = fields["stem_stride"] * 2 ** (len(fields["dims"]) - 1), rows * columns
    visible = draw(st.sampled_from(sorted({1, total - 1, max(1, total * 2 // 5)})), label="visible")
    model = spec.fcmae(
        **fields,
        image_size=(rows * patch, columns * patch),
        mask_ratio=ratio(total, visible),
        decoder_depth=draw(st.integers(0, 2 if len(fields["dims"]) < 3 else 1), label="decoder_depth"),
        decoder_dim=draw(st.integers(8, 14), label="decoder_dim"),
        norm_target=patch**2 * fields["in_chans"] > 1 and draw(st.booleans(), label="norm_target"),
    )
    return draw(_around(model, (rows, columns), visible))


@st.composite
def classifier_cases(draw: st.DrawFn) -> Case:
    """Dense classifiers."""
    rows, columns = draw(grids())
    model = spec.classifier(**draw(sizes()), num_classes=draw(st.integers(1, 5), label="num_classes"))
    return draw(_around(model, (rows, columns), rows * columns))


@st.composite
def backbone_cases(draw: st.DrawFn) -> Case:
    """Encoders alone, masked or not, with and without norms of their maps."""
    rows, columns = draw(grids())
    model = spec.encoder(**draw(sizes()), out_norm=draw(st.booleans(), label="out_norm"))
    return draw(_around(model, (rows, columns), draw(st.integers(1, rows * columns), label="visible")))


def variants(case: Case) -> st.SearchStrategy[Case]:
    """The case with other images, masks and parameters of the same shapes, which cost no compilation."""
    return st.builds(
        replace,
        st.just(case),
        pixels=st.sampled_from(("normal", "dyadic", "constant", "dark")),
        weights=st.sampled_from(("unit", "dead")),
        masking=st.sampled_from(("scattered", "bottom", "right")),
        seed=st.integers(0, 2**16),
    )


def _around(model: spec.Model, grid: tuple[int, int], visible: int) -> st.SearchStrategy[Case]:
    return st.integers(1, 3).flatmap(lambda count: variants(Case(model, grid, visible, count)))


def _fcmae(grid: tuple[int, int], visible: int, **fields: Any) -> Case:
    facts = {name: fields.pop(name) for name in ("count", "pixels", "weights", "masking", "seed") if name in fields}
    patch = fields.get("stem_stride", 4) * 2 ** (len(fields["dims"]) - 1)
    size = (grid[0] * patch, grid[1] * patch)
    model = spec.fcmae(**fields, image_size=size, mask_ratio=ratio(grid[0] * grid[1], visible))
    return Case(model, grid, visible, **facts)


def _classifier(grid: tuple[int, int], visible: int, **fields: Any) -> Case:
    facts = {name: fields.pop(name) for name in ("count", "pixels", "weights", "masking", "seed") if name in fields}
    return Case(spec.classifier(**fields), grid, visible, **facts)


def _backbone(grid: tuple[int, int], visible: int, **fields: Any) -> Case:
    return Case(spec.encoder(**fields), grid, visible)


CASES: dict[str, Case] = {
    "four stages": _fcmae((2, 3), 2, depths=(1, 1, 1, 1), dims=(8, 9, 10, 12), decoder_dim=8, stem_stride=1),
    "batch scope": _fcmae((3, 2), 2, depths=(1, 1), dims=(8, 10), decoder_dim=12, stem_stride=2, grn_scope="batch"),
    "V1": _fcmae((2, 3), 2, depths=(1, 2), dims=(8, 10), decoder_dim=8, stem_stride=2, block="v1"),
    "no depthwise bias": _fcmae(
        (2, 2), 2, depths=(1, 1), dims=(8, 9), decoder_dim=8, stem_stride=2, norm_eps=1e-3, dwconv_bias=False
    ),
    "grid scope": _fcmae((3, 2), 2, depths=(1, 2), dims=(8, 9), decoder_dim=8, stem_stride=2, grn_scope="grid"),
    "equal widths": _fcmae((3, 3), 4, depths=(1, 2), dims=(6, 8), decoder_dim=8, decoder_depth=2, in_chans=2),
    "batch of three": _fcmae((2, 2), 1, depths=(1, 1), dims=(8, 8), decoder_dim=8, stem_stride=2, count=3),
    "offset": _fcmae((2, 2), 2, depths=(1,), dims=(8,), decoder_dim=8, weights="offset"),
    "one visible": _fcmae((1, 4), 1, depths=(1, 1), dims=(7, 9), decoder_dim=6, decoder_depth=0, count=1),
    "dead channels": _fcmae((2, 3), 3, depths=(2,), dims=(8,), decoder_dim=8, weights="dead", pixels="dark"),
    "raw target": _fcmae((4, 1), 3, depths=(1, 1, 1), dims=(6, 8, 8), decoder_dim=8, norm_target=False, count=3),
    "classifier": _classifier((2, 1), 2, depths=(1, 1), dims=(8, 10), num_classes=5, stem_stride=2, count=3),
    "masked classifier": _classifier((3, 2), 2, depths=(1, 1), dims=(8, 10), num_classes=3, stem_stride=2),
    "features": _classifier((1, 2), 2, depths=(1,), dims=(8,), num_classes=0, stem_stride=2),
    "backbone": _backbone((2, 2), 2, depths=(1, 1), dims=(8, 10), stem_stride=2, out_norm=True),
}
"""Small models that together depend on every rule: each mutant must die on at least one."""
