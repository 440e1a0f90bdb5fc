"""K, the number of patches that every image keeps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import spec
from tests.spec.strategies import cheap


@pytest.mark.parametrize(
    ("image_size", "ratio", "visible"),
    [(224, 0.6, 19), (384, 0.6, 57), (512, 0.6, 102), ((128, 96), 0.6, 4), (224, 0.75, 12), (64, 0.5, 2)],
)
def test_visible_patches(image_size: int | tuple[int, int], ratio: float, visible: int) -> None:
    assert spec.visible_patches(spec.fcmae("convnextv2_atto", image_size=image_size, mask_ratio=ratio)) == visible


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
)
def test_a_model_keeps_some_patches_and_removes_some_or_is_refused(rows: int, columns: int, ratio: float) -> None:
    fields = {"depths": (1,), "dims": (4,), "image_size": (4 * rows, 4 * columns)}
    try:
        model = spec.fcmae(**fields, mask_ratio=ratio)
    except spec.SpecError as refusal:
        assert rows * columns == 1 or spec.count_visible((rows, columns), ratio) in (0, rows * columns)
        if rows * columns > 1:
            remedy = float(str(refusal).split("try ")[1].split()[0])
            spec.fcmae(**fields, mask_ratio=remedy)
    else:
        assert 0 < spec.visible_patches(model) < rows * columns
