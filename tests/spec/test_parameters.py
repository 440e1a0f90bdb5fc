"""The parameter table: names, shapes, order, first values, decay and layer ids."""

from dataclasses import replace
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import example, given

import spec
from spec.model import WeightInit
from tests.spec.published import Published, every_size
from tests.spec.strategies import cheap, classifiers, models

Rule = Literal["single", "group"]
AFFINE = ("weight", "bias")
BLOCK_LAYERS = ("dwconv", "pwconv1", "pwconv2")
BLOCK = [
    *(f"{layer}.{leaf}" for layer in ("dwconv", "norm", "pwconv1") for leaf in AFFINE),
    *("grn.gamma", "grn.beta", "pwconv2.weight", "pwconv2.bias"),
]


def test_names_are_the_released_ones_in_the_order_of_the_module_tree() -> None:
    model = spec.classifier(depths=(1, 2), dims=(8, 12), num_classes=5)
    assert list(spec.parameters(model)) == [
        *(f"downsample_layers.{i}.{j}.{leaf}" for i in (0, 1) for j in (0, 1) for leaf in AFFINE),
        *(f"stages.{at}.{leaf}" for at in ("0.0", "1.0", "1.1") for leaf in BLOCK),
        *("norm.weight", "norm.bias", "head.weight", "head.bias"),
    ]


def test_blocks_of_v1_have_gamma_in_place_of_grn() -> None:
    v1, v2 = (
        spec.parameters(spec.fcmae(depths=(1, 2), dims=(8, 12), decoder_dim=6, block=kind)) for kind in ("v1", "v2")
    )
    assert {name for name in v2 if name not in v1} == {name for name in v2 if ".grn." in name}
    scales = {name: param.shape for name, param in v1.items() if name not in v2}
    blocks = {"encoder.stages.0.0": 8, "encoder.stages.1.0": 12, "encoder.stages.1.1": 12, "decoder.0": 6}
    assert scales == {f"{at}.gamma": (dim,) for at, dim in blocks.items()}


def test_an_autoencoder_names_the_same_encoder_and_then_its_decoder() -> None:
    fields = {"depths": (1, 2), "dims": (8, 12)}
    dense = list(spec.parameters(spec.classifier(**fields)))[:-4]  # no norm, no head
    assert list(spec.parameters(spec.fcmae(**fields, decoder_depth=2))) == [
        *(f"encoder.{name}" for name in dense),
        *("proj.weight", "proj.bias", "mask_token"),
        *(f"decoder.{j}.{leaf}" for j in (0, 1) for leaf in BLOCK),
        *("pred.weight", "pred.bias"),
    ]


def test_shapes_are_the_canonical_ones() -> None:
    table = spec.parameters(
        spec.fcmae(depths=(1, 1), dims=(8, 12), in_chans=5, stem_stride=3, image_size=12, decoder_dim=6)
    )
    shapes = {
        "encoder.downsample_layers.0.0.weight": (8, 5, 3, 3),
        "encoder.downsample_layers.0.1.weight": (8,),
        "encoder.downsample_layers.1.0.bias": (8,),
        "encoder.downsample_layers.1.1.weight": (12, 8, 2, 2),
        "encoder.stages.1.0.dwconv.weight": (12, 1, 7, 7),
        "encoder.stages.1.0.pwconv1.weight": (48, 12),
        "encoder.stages.1.0.grn.gamma": (48,),
        "encoder.stages.1.0.pwconv2.weight": (12, 48),
        "proj.weight": (6, 12),
        "mask_token": (6,),
        "decoder.0.grn.beta": (24,),
        "pred.weight": (6 * 6 * 5, 6),
    }
    assert {name: table[name].shape for name in shapes} == shapes


@cheap
@given(model=models)
def test_the_count_is_the_closed_form(model: spec.Model) -> None:
    encoder = model.encoder
    dims, last = encoder.dims, encoder.dims[-1]
    expected = encoder.stem_stride**2 * encoder.in_chans * dims[0] + 3 * dims[0]
    expected += sum(2 * a + 4 * a * b + b for a, b in pairwise(dims))
    expected += sum(depth * _block(encoder, dim) for depth, dim in zip(encoder.depths, dims, strict=True))
    if isinstance(model, spec.Classifier):
        expected += 2 * last + (last + 1) * model.num_classes
    elif isinstance(model, spec.Backbone):
        expected += 2 * sum(dims) * model.out_norm
    else:
        width, values = model.decoder_dim, encoder.patch_size**2 * encoder.in_chans
        expected += (last + 1) * width + width + model.decoder_depth * _block(encoder, width) + (width + 1) * values
    assert spec.count(model) == expected


def _block(encoder: spec.Encoder, dim: int) -> int:
    return 8 * dim**2 + ({"v1": 57, "v2": 64}[encoder.block] + encoder.dwconv_bias) * dim


@cheap
@given(model=models)
def test_exactly_the_weights_of_convolutions_and_linear_layers_decay(model: spec.Model) -> None:
    linear = ("downsample_layers.0.0", "dwconv", "pwconv1", "pwconv2", "proj", "pred", "head")
    conv = tuple(f"downsample_layers.{stage}.1" for stage in range(1, len(model.encoder.dims)))
    for name, param in spec.parameters(model).items():
        assert param.decays == name.endswith(tuple(f"{layer}.weight" for layer in linear + conv)), name


@cheap
@given(model=models)
def test_first_values(model: spec.Model) -> None:
    for name, param in spec.parameters(model).items():
        if name == "mask_token":
            assert param.init == spec.Draw("normal", 0.02)
        elif param.decays:
            assert param.init == spec.Draw("trunc_normal", 0.02), name
        elif name.endswith(".gamma") and ".grn." not in name:
            assert param.init == 1e-6, name
        else:
            norm = name.endswith(".weight")  # all other weights decay
            assert param.init == float(norm), name


SMALL, ONE = spec.Draw("trunc_normal", 0.02), spec.Draw("trunc_normal", 1.0)


def torch_default(inputs: int) -> spec.Draw:
    return spec.Draw("uniform", 1 / inputs**0.5)


STARTS: dict[str, tuple[spec.Draw | float, spec.Draw | float]] = {  # "released", "torch_decoder"
    "encoder.downsample_layers.0.0.weight": (ONE, SMALL),
    "encoder.downsample_layers.1.1.weight": (SMALL, SMALL),
    **{f"encoder.stages.{at}.0.{layer}.weight": (ONE, SMALL) for at in (0, 1) for layer in BLOCK_LAYERS},
    "proj.weight": (ONE, torch_default(25)),
    "proj.bias": (0.0, torch_default(25)),
    "decoder.0.dwconv.weight": (ONE, torch_default(49)),
    "decoder.0.dwconv.bias": (0.0, torch_default(49)),
    **{f"decoder.0.pwconv1.{leaf}": (torch_default(16),) * 2 for leaf in AFFINE},
    **{f"decoder.0.pwconv2.{leaf}": (torch_default(64),) * 2 for leaf in AFFINE},
    "pred.weight": (ONE, torch_default(16)),
    "pred.bias": (0.0, torch_default(16)),
}


@pytest.mark.parametrize(("column", "init"), [(0, "released"), (1, "torch_decoder")])
def test_an_autoencoder_starts_as_another_code_draws_it(column: int, init: WeightInit) -> None:
    default = spec.fcmae(depths=(1, 1), dims=(9, 25), decoder_dim=16)
    expected = {name: param.init for name, param in spec.parameters(default).items()}
    expected |= {name: draws[column] for name, draws in STARTS.items()}
    assert {name: param.init for name, param in spec.parameters(replace(default, init=init)).items()} == expected


def test_the_scale_of_the_head_is_that_of_its_first_weights_only() -> None:
    one, scaled = (spec.parameters(spec.classifier("convnextv2_atto", head_init_scale=s)) for s in (1.0, 0.001))
    assert {name for name in one if one[name] != scaled[name]} == {"head.weight"}
    assert scaled["head.weight"].init == spec.Draw("trunc_normal", 0.02 * 0.001)


@cheap
@given(model=models)
def test_axes_and_sizes_belong_together(model: spec.Model) -> None:
    known = {("out", "in", "kh", "kw"), ("ch", "one", "kh", "kw"), ("out", "in"), ("ch",)}
    for name, param in spec.parameters(model).items():
        assert param.axes in known, name
        assert len(param.axes) == len(param.shape), name


def test_single_layer_ids_count_the_blocks() -> None:
    model = spec.classifier(depths=(1, 2, 1), dims=(4, 5, 6))
    ids = {name.rsplit(".", 2)[0]: param.layer_ids["single"] for name, param in spec.parameters(model).items()}
    assert ids == {
        "downsample_layers.0": 1,
        "stages.0.0": 1,
        "downsample_layers.1": 2,
        "stages.1.0": 2,
        "stages.1.1": 3,
        "downsample_layers.2": 4,
        "stages.2.0": 4,
        "norm": 5,
        "head": 5,
    }
    assert spec.num_layers(model, "single") == 4


def test_group_layer_ids_take_the_third_stage_by_threes() -> None:
    model = spec.classifier("convnextv2_base")
    ids = {name: param.layer_ids["group"] for name, param in spec.parameters(model).items()}
    parts = {f"downsample_layers.{i}": group for i, group in enumerate((0, 2, 3, 12))}
    parts |= {f"stages.{i}.{j}": group for i, group in ((0, 1), (1, 2), (3, 12)) for j in range(3)}
    parts |= {f"stages.2.{j}": 3 + j // 3 for j in range(27)}
    parts |= {"norm": 13, "head": 13}
    assert all(ids[name] == group for at, group in parts.items() for name in ids if name.startswith(f"{at}."))
    assert set(ids.values()) == set(range(14)) == set(parts.values())
    assert spec.num_layers(model, "group") == 12


@cheap
@given(model=classifiers())
@example(model=spec.classifier(depths=(1, 1, 60, 1), dims=(1, 1, 1, 1)))
@pytest.mark.parametrize("rule", ["single", "group"])
def test_layer_ids_never_fall_with_depth_nor_pass_the_head(rule: Rule, model: spec.Classifier) -> None:
    table = spec.parameters(model)
    in_order = [table[f"{name}.{leaf}"].layer_ids[rule] for name, leaf in _one_leaf_per_step(model)]
    assert in_order == sorted(in_order)
    assert in_order[-1] == spec.num_layers(model, rule) + 1


def _one_leaf_per_step(model: spec.Classifier) -> list[tuple[str, str]]:
    weighted = ((name, step) for name, step in model.steps if name != "pool")
    return [(name, "dwconv.weight" if isinstance(step, spec.Residual) else "weight") for name, step in weighted]


@every_size
def test_the_decoder_is_as_deep_as_a_head(preset: str, size: Published) -> None:
    table = spec.parameters(spec.fcmae(preset))
    decoder = [param for name, param in table.items() if not name.startswith("encoder.")]
    deepest = {"single": sum(size.depths) + 1, "group": 13}
    assert all(param.layer_ids == deepest for param in decoder)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(spec.SpecError, match="layer decay rule: 'both' is unknown; choose 'single' or 'group'"):
        spec.num_layers(spec.classifier("convnextv2_atto"), "both")
