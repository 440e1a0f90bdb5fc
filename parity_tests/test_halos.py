"""Torch reads neighbourhoods of visible sites over patches or over whole images: both compute the same."""

import pytest

torch = pytest.importorskip("torch")

from backends.torch import depthwise  # noqa: E402
from backends.torch.space import patches  # noqa: E402
from parity_tests.strategies import CASES  # noqa: E402
from parity_tests.subjects import Subject  # noqa: E402
from parity_tests.test_laws import assert_obeys  # noqa: E402

NEVER, ALWAYS = float("inf"), 0.0


@pytest.mark.parametrize("whole", [NEVER, ALWAYS], ids=["patches", "images"])
@pytest.mark.parametrize("label", CASES)
def test_both_obey(label: str, whole: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "WHOLE", whole)
    assert_obeys(Subject("torch", "visible"), CASES[label], "float64")


def test_a_site_kept_at_the_wrong_place_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = patches.Layout._image_halo
    monkeypatch.setattr(patches, "WHOLE", ALWAYS)

    def wrong(*args: int) -> patches.Halo:
        halo = right(*args)
        assert halo.kept is not None
        return halo._replace(kept=halo.kept.roll(1))

    monkeypatch.setattr(patches.Layout, "_image_halo", wrong)
    with pytest.raises(AssertionError, match="dwconv"):
        assert_obeys(Subject("torch", "visible"), CASES["batch of three"], "float64")


def test_images_are_read_where_patches_are_small() -> None:
    ranks = torch.rand(2, 49, generator=torch.Generator().manual_seed(0)).argsort(1).argsort(1)
    layout = patches.Layout.of((ranks >= 19).view(2, 7, 7), 19)
    assert [layout.halo(side, 3).kept is not None for side in (8, 4, 2, 1)] == [False, False, True, True]


def test_patches_of_one_site_need_no_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    x, grad = torch.rand(2, 2, 3, 1, 1, 4, dtype=torch.float64)
    halo = patches.Layout.of(torch.tensor([[[0, 0, 1, 0]], [[1, 0, 0, 0]]]), 3)._patch_halo(1, 1)
    weight = torch.rand(4, 1, 3, 3, dtype=torch.float64)
    expected = depthwise._library_gradient(
        depthwise._rows(x, halo.rows).permute(0, 3, 1, 2), grad.flatten(0, 1).permute(0, 3, 1, 2), weight
    )
    monkeypatch.setattr(depthwise.F, "conv2d", None)
    torch.testing.assert_close(depthwise._weight_gradient(x, grad, weight, halo), expected)
