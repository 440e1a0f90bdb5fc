"""The architecture as data: which steps, in which order, with which numbers."""

import dataclasses
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import spec
from tests.spec.strategies import cheap, models, shapes


def test_a_block_mixes_space_then_channels_then_lets_them_compete() -> None:
    block = dict(spec.classifier("convnextv2_atto").steps)["stages.3.1"]
    assert isinstance(block, spec.Residual)
    assert block.body == (
        ("dwconv", spec.DepthwiseConv(320, 7)),
        ("norm", spec.LayerNorm(320, 1e-6)),
        ("pwconv1", spec.Dense(320, 1280)),
        ("act", spec.Gelu()),
        ("grn", spec.GRN(1280, 1e-6, "image")),
        ("pwconv2", spec.Dense(1280, 320)),
    )


def test_a_block_of_v1_scales_its_output_instead() -> None:
    block = dict(spec.classifier("convnext_atto").steps)["stages.3.1"]
    assert isinstance(block, spec.Residual)
    assert block.body == (
        ("dwconv", spec.DepthwiseConv(320, 7)),
        ("norm", spec.LayerNorm(320, 1e-6)),
        ("pwconv1", spec.Dense(320, 1280)),
        ("act", spec.Gelu()),
        ("pwconv2", spec.Dense(1280, 320)),
        ("gamma", spec.LayerScale(320, 1e-6)),
    )


@cheap
@given(model=models)
def test_every_layer_norm_has_the_epsilon_of_the_encoder_and_grn_its_own(model: spec.Model) -> None:
    steps = [step for _, step in spec.modules(model)]
    steps += [inner for step in steps if isinstance(step, spec.Residual) for _, inner in step.body]
    assert {step.eps for step in steps if isinstance(step, spec.LayerNorm)} == {model.encoder.norm_eps}
    assert {step.eps for step in steps if isinstance(step, spec.GRN)} <= {1e-6}
    assert {step.bias for step in steps if isinstance(step, spec.DepthwiseConv)} == {model.encoder.dwconv_bias}


def test_the_stem_norms_after_its_convolution_and_a_downsampling_before() -> None:
    steps = dict(spec.classifier(depths=(1, 1), dims=(8, 12), in_chans=2, stem_stride=3).steps)
    assert steps["downsample_layers.0.0"] == spec.PatchConv(2, 8, 3)
    assert steps["downsample_layers.0.1"] == spec.LayerNorm(8, 1e-6)
    assert steps["downsample_layers.1.0"] == spec.LayerNorm(8, 1e-6)
    assert steps["downsample_layers.1.1"] == spec.PatchConv(8, 12, 2)


def test_steps_stand_in_the_order_of_execution() -> None:
    fields = {"depths": (1, 2), "dims": (8, 12)}
    encoder = [f"{at}.{j}" for stage in (0, 1) for at, js in _parts(stage) for j in js]
    assert [name for name, _ in spec.classifier(**fields).steps] == [*encoder, "pool", "norm", "head"]
    assert [name for name, _ in spec.fcmae(**fields, decoder_depth=2).steps] == [
        *(f"encoder.{name}" for name in encoder),
        *("proj", "mask_token", "decoder.0", "decoder.1", "pred"),
    ]


def _parts(stage: int) -> tuple[tuple[str, range], tuple[str, range]]:
    return (f"downsample_layers.{stage}", range(2)), (f"stages.{stage}", range(stage + 1))


def test_the_decoder_predicts_every_value_of_a_patch() -> None:
    model = spec.fcmae(depths=(1, 1), dims=(8, 12), in_chans=5, stem_stride=3, image_size=(12, 18), decoder_dim=10)
    steps = dict(model.steps)
    assert steps["proj"] == spec.Dense(12, 10)
    assert steps["mask_token"] == spec.FillRemoved(10)
    assert steps["pred"] == spec.Dense(10, 6 * 6 * 5)


@cheap
@given(model=models)
def test_blocks_are_numbered_in_order(model: spec.Model) -> None:
    indices = [step.index for _, step in model.steps if isinstance(step, spec.Residual)]
    assert indices == list(range(len(indices)))


@cheap
@given(fields=shapes(), top=st.floats(0, 1, exclude_max=True))
def test_drop_path_rises_linearly_from_nothing(fields: dict, top: float) -> None:
    encoder = spec.classifier(**fields, drop_path=top).encoder
    rates = encoder.drop_path_rates()
    assert len(rates) == encoder.num_blocks == sum(encoder.depths)
    assert rates[-1] == (top if len(rates) > 1 else 0)
    for index, rate in enumerate(rates):
        exact = Fraction(top) * Fraction(index, max(len(rates) - 1, 1))
        assert abs(Fraction(rate) - exact) <= 2 * math.ulp(top)  # a quotient and a product, each rounded


def test_drop_path_lies_in_the_blocks() -> None:
    steps = spec.classifier(depths=(1, 2), dims=(8, 12), drop_path=0.5).steps
    assert [step.drop_path for _, step in steps if isinstance(step, spec.Residual)] == [0, 0.25, 0.5]


def test_an_autoencoder_drops_no_path() -> None:
    steps = spec.fcmae("convnextv2_atto").steps
    assert {step.drop_path for _, step in steps if isinstance(step, spec.Residual)} == {0}


def test_grn_reduces_over_an_image_by_default_and_in_the_decoder_always() -> None:
    released = spec.fcmae("convnextv2_atto", grn_scope="batch")
    assert _scopes(spec.fcmae("convnextv2_atto")) == {"encoder": {"image"}, "decoder": {"image"}}
    assert _scopes(released) == {"encoder": {"batch"}, "decoder": {"image"}}


def _scopes(model: spec.FCMAE) -> dict[str, set[str]]:
    scopes: dict[str, set[str]] = {}
    for name, step in model.steps:
        if isinstance(step, spec.Residual):
            grn = dict(step.body)["grn"]
            assert isinstance(grn, spec.GRN)
            scopes.setdefault(name.split(".")[0], set()).add(grn.scope)
    return scopes


@pytest.mark.parametrize("fields", [{"patch_size": 8}, {"stem_stride": 1}, {"patch_size": 8, "stem_stride": 1}])
def test_a_patch_is_the_stem_doubled_at_every_later_stage(fields: dict) -> None:
    model = spec.fcmae("convnextv2_atto", image_size=32, **fields)
    assert (model.encoder.stem_stride, model.encoder.patch_size, model.grid) == (1, 8, (4, 4))
    assert [spec.patch_sites(8, 1, stage) for stage in range(4)] == [8, 4, 2, 1]


def test_a_grid_need_not_be_square() -> None:
    model = spec.fcmae("convnextv2_atto", image_size=(128, 96))
    assert (model.image_size, model.grid, model.patch_values) == ((128, 96), (4, 3), 32 * 32 * 3)


def test_fields_replace_those_of_a_preset() -> None:
    model = spec.classifier("convnextv2_atto", depths=(1, 1, 1, 1))
    assert (model.encoder.depths, model.encoder.dims) == ((1, 1, 1, 1), (40, 80, 160, 320))


def test_any_integer_type_counts_and_any_sequence() -> None:
    np = pytest.importorskip("numpy")
    sizes = np.array([1, 2])
    model = spec.classifier(depths=sizes, dims=list(sizes * 8), num_classes=np.int32(5))
    assert model == spec.classifier(depths=(1, 2), dims=(8, 16), num_classes=5)
    assert {type(value) for value in (*model.encoder.depths, *model.encoder.dims, model.num_classes)} == {int}


@cheap
@given(model=models)
def test_equal_specs_are_equal_hash_alike_and_cannot_be_changed(model: spec.Model) -> None:
    twin = dataclasses.replace(model)
    assert twin == model
    assert hash(twin) == hash(model)
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.encoder = twin.encoder  # type: ignore[misc]
