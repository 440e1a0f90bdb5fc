"""K, the number of patches that every image keeps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import spec
from spec.geometry import ROUNDINGS
from tests.spec.strategies import cheap


@pytest.mark.parametrize(
    ("image_size", "ratio", "visible"),
    [(224, 0.6, 19), (384, 0.6, 57), (512, 0.6, 102), ((128, 96), 0.6, 4), (224, 0.75, 12), (64, 0.5, 2)],
)
def test_visible_patches(image_size: int | tuple[int, int], ratio: float, visible: int) -> None:
    assert spec.visible_patches(spec.fcmae("convnextv2_atto", image_size=image_size, mask_ratio=ratio)) == visible


@pytest.mark.parametrize(("rounding", "visible"), [("floor", 19), ("ceil", 20), ("round", 20)])
def test_the_rounding_of_each_published_code(rounding: spec.Rounding, visible: int) -> None:
    """SparK rounds to the nearest, VisCy rounds the removed patches down; both keep 20 of 49."""
    model = spec.fcmae("convnextv2_atto", mask_ratio=0.6, mask_rounding=rounding)
    assert spec.visible_patches(model) == visible
    assert spec.count_visible((3, 4), 0.625, rounding) == {"floor": 4, "ceil": 5, "round": 4}[rounding]  # 4.5
    assert spec.count_visible((2, 5), 0.7, rounding) == 3  # 10 * (1 - 0.7) is 3.0000000000000004 in floats


@cheap
@given(st.integers(2, 400), st.data(), st.sampled_from(ROUNDINGS))
def test_any_number_of_visible_patches_has_a_ratio(patches: int, data: st.DataObject, rounding: spec.Rounding) -> None:
    visible = data.draw(st.integers(1, patches - 1), label="visible")
    assert spec.count_visible((1, patches), spec.ratio_for(visible, patches, rounding), rounding) == visible


def test_the_float_trap_is_kept_as_published_and_refused_where_nothing_is_left() -> None:
    assert spec.count_visible((2, 5), 0.9) == 0  # one in exact arithmetic
    assert spec.count_visible((2, 5), 0.8) == 1  # two
    with pytest.raises(
        spec.SpecError, match=r"^mask_ratio: 0\.9 leaves 0 of 10 patches visible; .* try 0\.85 or less$"
    ):
        spec.fcmae("convnextv2_atto", image_size=(64, 160), mask_ratio=0.9)


@cheap
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    ratio=st.floats(0, 1, exclude_min=True, exclude_max=True),
    rounding=st.sampled_from(ROUNDINGS),
)
def test_a_model_keeps_some_patches_and_removes_some_or_is_refused(
    rows: int, columns: int, ratio: float, rounding: spec.Rounding
) -> None:
    fields = {"depths": (1,), "dims": (4,), "image_size": (4 * rows, 4 * columns), "mask_rounding": rounding}
    try:
        model = spec.fcmae(**fields, mask_ratio=ratio)
    except spec.SpecError as refusal:
        assert rows * columns == 1 or spec.count_visible((rows, columns), ratio, rounding) in (0, rows * columns)
        if rows * columns > 1:
            remedy = float(str(refusal).split("try ")[1].split()[0])
            spec.fcmae(**fields, mask_ratio=remedy)
    else:
        assert 0 < spec.visible_patches(model) < rows * columns
