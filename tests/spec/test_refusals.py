"""Every model that cannot be is refused in one line: the field, its value, what is possible."""

from collections.abc import Callable
from typing import Any

import pytest

import spec

ATTO = "convnextv2_atto"
PRESETS = ", ".join(spec.PRESETS)
FIELDS = "depths, dims, in_chans, patch_size, stem_stride, block, grn_scope, norm_eps, dwconv_bias"

EITHER: list[tuple[dict[str, Any], str]] = [
    ({}, "depths, dims: give both, or a preset such as 'convnextv2_atto'"),
    ({"depths": (1, 1)}, "depths, dims: give both, or a preset such as 'convnextv2_atto'"),
    ({"preset": "atto"}, f"preset: 'atto' is unknown; choose one of {PRESETS}, or give depths and dims"),
    ({"preset": [2, 2]}, f"preset: [2, 2] is unknown; choose one of {PRESETS}, or give depths and dims"),
    (
        {"depths": (1, 1), "dims": (8,)},
        "depths (1, 1) and dims (8,): give one of each per stage, at least one stage",
    ),
    ({"depths": (), "dims": ()}, "depths () and dims (): give one of each per stage, at least one stage"),
    ({"depths": 3, "dims": (8,)}, "depths: 3 is not a sequence of whole numbers, one per stage"),
    ({"depths": "3", "dims": (8,)}, "depths: '3' is not a sequence of whole numbers, one per stage"),
    ({"depths": (1, 0), "dims": (8, 8)}, "depths[1]: 0 is not a whole number of at least 1"),
    ({"depths": (1, 1), "dims": (8, 8.5)}, "dims[1]: 8.5 is not a whole number of at least 1"),
    ({"preset": ATTO, "in_chans": 0}, "in_chans: 0 is not a whole number of at least 1"),
    ({"preset": ATTO, "in_chans": True}, "in_chans: True is not a whole number of at least 1"),
    ({"preset": ATTO, "stem_stride": -4}, "stem_stride: -4 is not a whole number of at least 1"),
    ({"preset": ATTO, "stem_stride": "4"}, "stem_stride: '4' is not a whole number of at least 1"),
    ({"preset": ATTO, "patch_size": 32.0}, "patch_size: 32.0 is not a whole number of at least 1"),
    (
        {"preset": ATTO, "patch_size": 20},
        "patch_size: 20 is no multiple of 8, the stride of 4 stages past the stem; try 16",
    ),
    (
        {"preset": ATTO, "patch_size": 4},
        "patch_size: 4 is no multiple of 8, the stride of 4 stages past the stem; try 8",
    ),
    (
        {"preset": ATTO, "patch_size": 16, "stem_stride": 4},
        "patch_size 16 and stem_stride 4: with 4 stages a patch is 8 * stem_stride pixels;"
        " give stem_stride=2 or leave one out",
    ),
    ({"preset": ATTO, "grn_scope": "rank"}, "grn_scope: 'rank' is unknown; choose 'image' or 'batch' or 'grid'"),
    ({"preset": ATTO, "block": "V1"}, "block: 'V1' is unknown; choose 'v1' or 'v2'"),
    ({"preset": ATTO, "norm_eps": 0}, "norm_eps: 0 is not above 0"),
    ({"preset": ATTO, "norm_eps": "1e-5"}, "norm_eps: '1e-5' is not a number"),
    ({"preset": ATTO, "norm_eps": float("nan")}, "norm_eps: nan is not above 0"),
    ({"preset": ATTO, "dwconv_bias": 0}, "dwconv_bias: 0 is neither True nor False"),
    (
        {"preset": "convnext_atto", "grn_scope": "batch"},
        "grn_scope: 'batch', and blocks of kind 'v1' have no GRN; leave it out",
    ),
    ({"preset": ATTO, "in_channels": 3}, "in_channels: no such field of this model; did you mean 'in_chans'?"),
]

CLASSIFIER: list[tuple[dict[str, Any], str]] = [
    ({"num_classes": -1}, "num_classes: -1 is not a whole number of at least 0"),
    ({"drop_path": 1}, "drop_path: 1 is not a number from 0 up to, not including, 1"),
    ({"drop_path": -0.1}, "drop_path: -0.1 is not a number from 0 up to, not including, 1"),
    ({"drop_path": float("nan")}, "drop_path: nan is not a number from 0 up to, not including, 1"),
    ({"drop_path": "0.1"}, "drop_path: '0.1' is not a number"),
    ({"n_classes": 10}, "n_classes: no such field of this model; did you mean 'num_classes'?"),
    (
        {"xyzzy": 1},
        f"xyzzy: no such field of this model; the fields are {FIELDS}, num_classes, drop_path, head_init_scale",
    ),
    ({"head_init_scale": 2}, "head_init_scale: 2 is not a number from 0 to 1"),
    ({"num_classes": 0, "head_init_scale": 0.5}, "head_init_scale: 0.5, and num_classes 0 has no head; leave it out"),
]

AUTOENCODER: list[tuple[dict[str, Any], str]] = [
    ({"image_size": 225}, "image_size: the height 225 is no multiple of the patch, 32 pixels; try 224 or 256"),
    ({"image_size": (64, 20)}, "image_size: the width 20 is no multiple of the patch, 32 pixels; try 64"),
    ({"image_size": (64, 64, 3)}, "image_size: (64, 64, 3) is neither a side nor (height, width)"),
    ({"image_size": "224"}, "image_size height: '224' is not a whole number of at least 1"),
    ({"image_size": 224.0}, "image_size height: 224.0 is not a whole number of at least 1"),
    ({"image_size": 0}, "image_size height: 0 is not a whole number of at least 1"),
    (
        {"image_size": 32},
        "image_size: the image is a single patch, which cannot be both seen and removed; enlarge it",
    ),
    ({"mask_ratio": 0}, "mask_ratio: 0 is not between 0 and 1, both excluded; the paper uses 0.6"),
    ({"mask_ratio": 1.0}, "mask_ratio: 1.0 is not between 0 and 1, both excluded; the paper uses 0.6"),
    ({"mask_ratio": float("nan")}, "mask_ratio: nan is not between 0 and 1, both excluded; the paper uses 0.6"),
    ({"mask_rounding": "up"}, "mask_rounding: 'up' is unknown; choose 'floor' or 'ceil' or 'round'"),
    ({"mask_ratio": "0.6"}, "mask_ratio: '0.6' is not a number"),
    (
        {"mask_ratio": 0.99},
        "mask_ratio: 0.99 leaves 0 of 49 patches visible; at least one must stay and one must go: try 0.969388 or less",
    ),
    (
        {"mask_ratio": 1e-20},
        "mask_ratio: 1e-20 leaves 49 of 49 patches visible;"
        " at least one must stay and one must go: try 0.0102041 or more",
    ),
    ({"decoder_depth": -1}, "decoder_depth: -1 is not a whole number of at least 0"),
    ({"decoder_dim": 0}, "decoder_dim: 0 is not a whole number of at least 1"),
    ({"init": "released!"}, "init: 'released!' is unknown; choose 'default' or 'released' or 'torch_decoder'"),
    ({"norm_target": "no"}, "norm_target: 'no' is neither True nor False"),
    (
        {"depths": (1,), "dims": (4,), "preset": None, "stem_stride": 1, "in_chans": 1},
        "norm_target: a patch of one value has no variance; give norm_target=False",
    ),
    ({"img_size": 64}, "img_size: no such field of this model; did you mean 'image_size'?"),
]


STAGES: list[tuple[Any, str]] = [
    ((), "stages: () is not a choice from 0 to 3, each once"),
    ((4,), "stages: (4,) is not a choice from 0 to 3, each once"),
    ((-1,), "stages: (-1,) is not a choice from 0 to 3, each once"),
    ((1, 1), "stages: (1, 1) is not a choice from 0 to 3, each once"),
    ((True,), "stages: (True,) is not a choice from 0 to 3, each once"),
    (("0",), "stages: ('0',) is not a choice from 0 to 3, each once"),
    (3, "stages: 3 is not a sequence of stages, such as (3,)"),
    ("3", "stages: '3' is not a sequence of stages, such as (3,)"),
]


@pytest.mark.parametrize(("stages", "message"), STAGES)
def test_stages_that_there_are_not(stages: Any, message: str) -> None:
    _assert_refused(spec.encoder(ATTO).encoder.feature_info, {"stages": stages}, message)


@pytest.mark.parametrize("model", [spec.encoder(ATTO), spec.classifier(ATTO, num_classes=0)])
def test_a_model_without_a_head_has_no_loss(model: spec.Model) -> None:
    line = "model: it has no head, so there is no loss to train it by; use spec.classifier or spec.fcmae"
    _assert_refused(spec.loss, {"model": model}, line)


@pytest.mark.parametrize("make", [spec.classifier, spec.fcmae, spec.encoder])
@pytest.mark.parametrize(("fields", "message"), EITHER)
def test_an_encoder_that_cannot_be(make: Callable[..., spec.Model], fields: dict[str, Any], message: str) -> None:
    _assert_refused(make, fields, message)


@pytest.mark.parametrize(("fields", "message"), CLASSIFIER)
def test_a_classifier_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    _assert_refused(spec.classifier, {"preset": ATTO} | fields, message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"out_norm": 1}, "out_norm: 1 is neither True nor False"),
        ({"num_classes": 3}, f"num_classes: no such field of this model; the fields are {FIELDS}, out_norm, drop_path"),
    ],
)
def test_a_backbone_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    _assert_refused(spec.encoder, {"preset": ATTO} | fields, message)


@pytest.mark.parametrize(("fields", "message"), AUTOENCODER)
def test_an_autoencoder_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    _assert_refused(spec.fcmae, {"preset": ATTO} | fields, message)


def _assert_refused(make: Callable[..., object], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(spec.SpecError) as refusal:
        make(**fields)
    assert str(refusal.value) == message
    assert "\n" not in message


def test_a_refusal_is_a_value_error() -> None:
    assert issubclass(spec.SpecError, ValueError)


@pytest.mark.parametrize("patch_size", [20, 4])
def test_the_suggested_patch_is_accepted(patch_size: int) -> None:
    with pytest.raises(spec.SpecError) as refusal:
        spec.classifier(ATTO, patch_size=patch_size)
    spec.classifier(ATTO, patch_size=int(str(refusal.value).split()[-1]))
