"""Multiply-accumulates: the closed form, and what is saved by computing on visible patches only."""

import pytest
from hypothesis import given

import spec
from tests.spec.published import Published, every_size
from tests.spec.strategies import autoencoders, cheap


@cheap
@given(model=autoencoders())
def test_the_cost_is_the_closed_form(model: spec.FCMAE) -> None:
    encoder, patches = model.encoder, model.grid[0] * model.grid[1]
    width, last = model.decoder_dim, encoder.dims[-1]
    before = (encoder.in_chans, *encoder.dims)
    per_patch = 0
    for stage, (depth, dim) in enumerate(zip(encoder.depths, encoder.dims, strict=True)):
        sites = 4 ** (len(encoder.dims) - 1 - stage)
        window = encoder.stem_stride if stage == 0 else 2
        per_patch += sites * (window**2 * before[stage] * dim + depth * _block(dim))
    decoder = width * last + model.decoder_depth * _block(width) + model.patch_values * width
    assert spec.macs(model) == patches * (per_patch + decoder)
    assert spec.macs(model, patches) == spec.macs(model)
    kept = spec.visible_patches(model)
    assert spec.macs(model, kept) == spec.macs(model) - (patches - kept) * (per_patch + width * last)


def _block(dim: int) -> int:
    return 49 * dim + 8 * dim**2


@cheap
@given(model=autoencoders())
def test_steps_are_named_as_in_the_model_and_sum_to_the_whole(model: spec.FCMAE) -> None:
    costs = list(spec.step_macs(model))
    assert [name for name, _ in costs] == [name for name, _ in model.steps]
    assert sum(cost for _, cost in costs) == spec.macs(model)


@cheap
@given(model=autoencoders())
def test_sites_are_counted_where_a_step_computes(model: spec.FCMAE) -> None:
    kept, patches, last = spec.visible_patches(model), model.grid[0] * model.grid[1], len(model.encoder.dims) - 1
    sites = {name: count for name, _, count in spec.step_sites(model, kept)}
    for stage in range(last + 1):
        assert sites[f"encoder.stages.{stage}.0"] == kept * 4 ** (last - stage)
    assert (sites["proj"], sites["mask_token"], sites["pred"]) == (kept, patches, patches)


@every_size
def test_the_encoder_costs_its_share_of_visible_patches(preset: str, size: Published) -> None:
    model = spec.fcmae(preset)
    dense, sparse = dict(spec.step_macs(model)), dict(spec.step_macs(model, spec.visible_patches(model)))
    for name in dense:
        seen, patches = (19, 49) if name.startswith("encoder.") or name == "proj" else (1, 1)
        assert sparse[name] * patches == dense[name] * seen, name
    assert len([name for name in dense if name.startswith("encoder.stages")]) == sum(size.depths)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 225}, "image_size: the height 225 is no multiple of the patch, 32 pixels; try 224 or 256"),
        ({"image_size": (224, 31)}, "image_size: the width 31 is no multiple of the patch, 32 pixels; try 32"),
        ({"visible": 0}, "visible: 0 is not a whole number of at least 1"),
        ({"visible": 50}, "visible: 50 patches, and the image has 49"),
    ],
)
def test_impossible_sizes_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(spec.SpecError) as refusal:
        spec.macs(spec.classifier("convnextv2_atto"), **arguments)
    assert str(refusal.value) == message
