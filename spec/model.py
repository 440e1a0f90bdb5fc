"""ConvNeXt V1, ConvNeXt V2 and FCMAE, as data.

Read `block`, `Encoder.stages`, `Classifier.steps` and `FCMAE.steps`: they are the architecture.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal, NamedTuple

from spec import checks
from spec.geometry import Rounding
from spec.presets import PRESETS
from spec.steps import (
    GRN,
    STD,
    BlockKind,
    Dense,
    DepthwiseConv,
    FillRemoved,
    Gelu,
    GlobalPool,
    GRNScope,
    LayerNorm,
    LayerScale,
    Named,
    PatchConv,
    Residual,
)

EPS = 1e-6
"""The one epsilon of the published models: LayerNorm's, inside the root (`norm_eps`), and GRN's, beside the mean."""

LAYER_SCALE = 1e-6
"""The published first value of LayerScale's gamma."""

WeightInit = Literal["default", "released", "torch_decoder"]
"""How an autoencoder's first weights are drawn; `STDS` says with what deviations."""

KERNEL = 7
EXPANSION = 4


class Stds(NamedTuple):
    """Standard deviations of first weights, by part of an autoencoder; None as in `spec.steps`."""

    encoder: float = STD
    projections: float | None = STD
    dwconv: float | None = STD
    pwconv: float | None = STD


STDS: dict[WeightInit, Stds] = {
    "default": Stds(),
    "released": Stds(encoder=1.0, projections=1.0, dwconv=1.0, pwconv=None),  # facebookresearch's pre-training
    "torch_decoder": Stds(projections=None, dwconv=None, pwconv=None),  # BSP36/fcmae
}


def block(
    encoder: "Encoder",
    dim: int,
    index: int,
    scope: GRNScope = "image",
    drop_path: float = 0.0,
    stds: Stds = STDS["default"],
) -> Residual:
    """A block mixes space, then channels; "v2" then lets channels compete, "v1" scales the sum (V2 paper, figure 5)."""
    kind = encoder.block
    wide = EXPANSION * dim
    expand: Named = (
        ("dwconv", DepthwiseConv(dim, KERNEL, encoder.dwconv_bias, stds.dwconv)),
        ("norm", LayerNorm(dim, encoder.norm_eps)),
        ("pwconv1", Dense(dim, wide, stds.pwconv)),
        ("act", Gelu()),
    )
    grn: Named = (("grn", GRN(wide, EPS, scope)),) if kind == "v2" else ()
    gamma: Named = (("gamma", LayerScale(dim, LAYER_SCALE)),) if kind == "v1" else ()
    return Residual((*expand, *grn, ("pwconv2", Dense(wide, dim, stds.pwconv)), *gamma), drop_path, index)


class FeatureInfo(NamedTuple):
    """A stage's feature map: the stage, its channels, and the pixels between two of its sites."""

    stage: int
    channels: int
    stride: int


@dataclass(frozen=True)
class Encoder:
    """Four (or any number of) stages at strides stem_stride * 1, 2, 4, 8."""

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    in_chans: int
    stem_stride: int
    block: BlockKind
    grn_scope: GRNScope
    norm_eps: float = EPS
    dwconv_bias: bool = True
    drop_path: float = 0.0

    @property
    def patch_size(self) -> int:
        """The side, in pixels, of what one site of the last stage sees without overlap: the masking unit."""
        return int(self.stem_stride * 2 ** (len(self.depths) - 1))

    @property
    def num_blocks(self) -> int:
        return sum(self.depths)

    @property
    def preset(self) -> str | None:
        """The name of the preset of this size, if there is one."""
        own = vars(self).items()
        return next((name for name, size in PRESETS.items() if size.items() <= own), None)

    def drop_path_rates(self) -> tuple[float, ...]:
        """The rate of each block: linear from 0 at the first to `drop_path` at the last."""
        last = max(self.num_blocks - 1, 1)
        return tuple(self.drop_path * (index / last) for index in range(self.num_blocks))

    def feature_info(self, stages: Iterable[int] | None = None) -> tuple[FeatureInfo, ...]:
        """Channels and stride of the feature maps of stages, numbered from 0; None: of all. SpecError for others.

        >>> from spec import classifier
        >>> classifier("convnextv2_atto").encoder.feature_info([0, 3])
        (FeatureInfo(stage=0, channels=40, stride=4), FeatureInfo(stage=3, channels=320, stride=32))
        """
        chosen = checks.chosen_stages(stages, len(self.depths))
        return tuple(FeatureInfo(stage, self.dims[stage], self.stem_stride * 2**stage) for stage in chosen)

    @cached_property
    def steps(self) -> Named:
        return tuple(chain.from_iterable(self.stages))

    @cached_property
    def stages(self) -> tuple[Named, ...]:
        """The steps of each stage: the stem or a downsampling, then the blocks."""
        return self.stages_drawn(STD)

    def stages_drawn(self, std: float) -> tuple[Named, ...]:
        """The stages; std: of all first weights but those of downsampling, which have 0.02 in every code."""
        stages: list[Named] = []
        rates = self.drop_path_rates()
        index = 0
        for stage, (depth, dim) in enumerate(zip(self.depths, self.dims, strict=True)):
            at = f"downsample_layers.{stage}"
            steps: list[tuple[str, Any]]
            if stage == 0:
                steps = [
                    (f"{at}.0", PatchConv(self.in_chans, dim, self.stem_stride, std)),
                    (f"{at}.1", LayerNorm(dim, self.norm_eps)),
                ]
            else:
                before = self.dims[stage - 1]
                steps = [(f"{at}.0", LayerNorm(before, self.norm_eps)), (f"{at}.1", PatchConv(before, dim, 2))]
            for j in range(depth):
                drawn = block(self, dim, index, self.grn_scope, rates[index], Stds(dwconv=std, pwconv=std))
                steps.append((f"stages.{stage}.{j}", drawn))
                index += 1
            stages.append(tuple(steps))
        return tuple(stages)


@dataclass(frozen=True)
class Backbone:
    """The encoder alone: its feature maps, for dense tasks. With out_norm, each has a LayerNorm of its own."""

    encoder: Encoder
    out_norm: bool = False

    @property
    def steps(self) -> Named:
        return self.encoder.steps

    @cached_property
    def out_norms(self) -> Named:
        """The norm of each stage's feature map; the next stage reads the map without it."""
        dims = self.encoder.dims if self.out_norm else ()
        return tuple((f"norm{stage}", LayerNorm(dim, self.encoder.norm_eps)) for stage, dim in enumerate(dims))


@dataclass(frozen=True)
class Classifier:
    """ConvNeXt with a linear head on globally pooled, normalised features; 0 classes: without the head."""

    encoder: Encoder
    num_classes: int
    head_init_scale: float = 1.0

    @cached_property
    def steps(self) -> Named:
        dim = self.encoder.dims[-1]
        features: Named = (("pool", GlobalPool()), ("norm", LayerNorm(dim, self.encoder.norm_eps)))
        head: Named = (("head", Dense(dim, self.num_classes, STD * self.head_init_scale)),) if self.num_classes else ()
        return self.encoder.steps + features + head


@dataclass(frozen=True)
class FCMAE:
    """The fully convolutional masked autoencoder: a sparse encoder, a light dense decoder, a masked loss."""

    encoder: Encoder
    image_size: tuple[int, int]
    mask_ratio: float
    mask_rounding: Rounding
    decoder_depth: int
    decoder_dim: int
    norm_target: bool
    init: WeightInit = "default"

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches, G_h and G_w."""
        height, width = self.image_size
        return height // self.encoder.patch_size, width // self.encoder.patch_size

    @property
    def patch_values(self) -> int:
        """Pixels times channels of a patch: the channels of a prediction."""
        return self.encoder.patch_size**2 * self.encoder.in_chans

    @cached_property
    def steps(self) -> Named:
        blocks, stds = self.encoder.num_blocks, STDS[self.init]
        stages = self.encoder.stages_drawn(stds.encoder)
        encoder = tuple((f"encoder.{name}", step) for name, step in chain.from_iterable(stages))
        decoder: Named = (
            ("proj", Dense(self.encoder.dims[-1], self.decoder_dim, stds.projections)),
            ("mask_token", FillRemoved(self.decoder_dim)),
            *(
                (f"decoder.{j}", block(self.encoder, self.decoder_dim, blocks + j, stds=stds))
                for j in range(self.decoder_depth)
            ),
            ("pred", Dense(self.decoder_dim, self.patch_values, stds.projections)),
        )
        return encoder + decoder


Model = Classifier | FCMAE | Backbone


def modules(model: Model) -> Named:
    """Every step that a model holds: its chain, and the norms of feature maps, which are outside of the chain."""
    return model.steps + model.out_norms if isinstance(model, Backbone) else model.steps


def stage_names(model: Model) -> tuple[tuple[str, ...], ...]:
    """The names of the steps of each stage of the encoder, as they are in this model."""
    prefix = "encoder." if isinstance(model, FCMAE) else ""
    return tuple(tuple(prefix + name for name, _ in stage) for stage in model.encoder.stages)
