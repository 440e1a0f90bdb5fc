"""The constructors of models: they check every argument, and read presets."""

from typing import Any, get_args

from spec import checks
from spec.geometry import ROUNDINGS, Rounding
from spec.model import EPS, FCMAE, Backbone, Classifier, Encoder, WeightInit
from spec.presets import size_of

FIELDS = ("depths", "dims", "in_chans", "patch_size", "stem_stride", "block", "grn_scope", "norm_eps", "dwconv_bias")
"""The fields of the encoder, in any model; each replaces the preset's value."""


def classifier(
    preset: str | None = None,
    *,
    num_classes: int = 1000,
    drop_path: float = 0.0,
    head_init_scale: float = 1.0,
    **fields: Any,
) -> Classifier:
    """The classifier of a preset or of `depths` and `dims`; SpecError when there can be none.

    num_classes 0: pooled, normalised features without a head.
    head_init_scale: factor on the head's first weights; published fine-tuning has 0.001.
    fields: depths, dims, in_chans=3, patch_size, stem_stride=4, block="v2", grn_scope="image", norm_eps=1e-6,
    dwconv_bias=True.

    >>> model = classifier("convnextv2_tiny", num_classes=10)
    >>> model.encoder.depths, model.encoder.dims, model.num_classes
    ((3, 3, 9, 3), (96, 192, 384, 768), 10)
    """
    checks.known_fields(fields, (*FIELDS, "num_classes", "drop_path", "head_init_scale"))
    classes = checks.whole("num_classes", num_classes, at_least=0)
    scale = checks.head_init_scale(head_init_scale, classes)
    return Classifier(_encoder(preset, fields, checks.rate("drop_path", drop_path)), classes, scale)


def encoder(preset: str | None = None, *, out_norm: bool = False, drop_path: float = 0.0, **fields: Any) -> Backbone:
    """The encoder of a preset or of `depths` and `dims`, without a head; SpecError when there can be none.

    out_norm: give each stage's feature map a LayerNorm of its own, as detectors do; fields as in `classifier`.

    >>> [name for name, _ in encoder("convnextv2_atto", out_norm=True).out_norms]
    ['norm0', 'norm1', 'norm2', 'norm3']
    """
    checks.known_fields(fields, (*FIELDS, "out_norm", "drop_path"))
    norm = checks.flag("out_norm", out_norm)
    return Backbone(_encoder(preset, fields, checks.rate("drop_path", drop_path)), norm)


def fcmae(
    preset: str | None = None,
    *,
    image_size: int | tuple[int, int] = 224,
    mask_ratio: float = 0.6,
    mask_rounding: Rounding = "floor",
    decoder_depth: int = 1,
    decoder_dim: int = 512,
    norm_target: bool = True,
    init: WeightInit = "default",
    **fields: Any,
) -> FCMAE:
    """The masked autoencoder of a preset or of `depths` and `dims`; SpecError when there can be none.

    image_size is a side or (height, width) in pixels; mask_rounding as in `count_visible`; fields as in `classifier`.
    init: first weights of deviation 0.02 ("default"), of 1 in most places as facebookresearch's pre-training draws
    them ("released"), or the decoder's as torch.nn draws them ("torch_decoder").

    >>> fcmae("convnextv2_atto", image_size=(128, 96)).grid
    (4, 3)
    """
    own = ("image_size", "mask_ratio", "mask_rounding", "decoder_depth", "decoder_dim", "norm_target", "init")
    checks.known_fields(fields, (*FIELDS, *own))
    encoder = _encoder(preset, fields)
    height, width = checks.image_size(image_size, encoder.patch_size, smallest=2)
    rounding = checks.one_of("mask_rounding", mask_rounding, ROUNDINGS)
    return FCMAE(
        encoder,
        (height, width),
        checks.mask_ratio(mask_ratio, (height // encoder.patch_size, width // encoder.patch_size), rounding),
        rounding,
        checks.whole("decoder_depth", decoder_depth, at_least=0),
        checks.whole("decoder_dim", decoder_dim, at_least=1),
        checks.norm_target(norm_target, encoder.patch_size**2 * encoder.in_chans),
        checks.one_of("init", init, get_args(WeightInit)),
    )


def _encoder(preset: str | None, fields: dict[str, Any], drop_path: float = 0.0) -> Encoder:
    if preset is not None:
        fields = {**size_of(preset), **fields}
    depths, dims = checks.stages(fields.get("depths"), fields.get("dims"))
    kind = checks.one_of("block", fields.get("block", "v2"), ("v1", "v2"))
    return Encoder(
        depths,
        dims,
        checks.whole("in_chans", fields.get("in_chans", 3), at_least=1),
        checks.stem_stride(fields.get("stem_stride"), fields.get("patch_size"), len(depths)),
        kind,
        checks.grn_scope(fields.get("grn_scope", "image"), kind),
        checks.positive("norm_eps", fields.get("norm_eps", EPS)),
        checks.flag("dwconv_bias", fields.get("dwconv_bias", True)),
        drop_path,
    )
