"""The deterministic figures equal the baseline, and the guard reports planted regressions."""

from typing import Any

import pytest

from benchmarks import guard, kernels

NEEDS = {"torch": ["torch"], "jax": ["jax", "jaxlib"], "triton": ["torch", "triton"]}


def baseline(backend: str) -> dict[str, dict[str, int]]:
    """The committed figures; skips if they were measured with other versions than those installed."""
    if backend not in guard.measurable():
        pytest.skip(f"{backend} is not installed")
    document = guard.read()
    for package in NEEDS[backend]:
        here, there = guard.versions()[package], document["versions"][package]
        if here != there:
            pytest.skip(f"the baseline is for {package} {there}, not {here}: python -m benchmarks guard --update")
    return document["figures"]


@pytest.mark.parametrize("backend", NEEDS)
def test_figures_equal_the_baseline(backend: str) -> None:
    before = baseline(backend)
    lines = guard.moved(guard.measure(backend), before)
    assert not lines, "\n".join([*lines, "if that is intended: python -m benchmarks guard --update"])


def test_a_copy_before_every_convolution_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = baseline("torch")
    from backends.torch.space import visible

    plain = visible.halo_conv
    monkeypatch.setattr(visible, "halo_conv", lambda x, *rest: plain(x.clone(), *rest))
    lines = guard.moved(guard.measure("torch"), figures)
    assert [line.split(" (")[0] for line in lines if "saved" not in line] == [
        f"torch visible: operations {figures['torch visible']['operations']:,} -> "
        f"{figures['torch visible']['operations'] + guard.MODEL.encoder.num_blocks:,}"
    ]


def test_work_at_removed_patches_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = baseline("jax")
    from backends.jax.space import dense, visible

    def enter(images: Any, mask: Any, visible: int, **_: Any) -> Any:
        return dense.enter(images, mask, guard.MODEL.encoder.patch_size)

    monkeypatch.setattr(visible, "enter", enter)
    lines = guard.moved(guard.measure("jax"), figures)
    assert {line.split(" ")[2] for line in lines} == {"flops", "bytes", "temporary_bytes"}
    assert all(line.startswith("jax visible: ") for line in lines)


def test_work_at_removed_patches_is_reported_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = baseline("torch")
    from backends.torch.space import dense, visible

    def enter(images: Any, mask: Any, visible: int, **_: Any) -> Any:
        return dense.enter(images, mask, guard.MODEL.encoder.patch_size)

    monkeypatch.setattr(visible, "enter", enter)
    lines = guard.moved(guard.measure("torch"), figures)
    assert {line.split(" ")[2] for line in lines} == {"flops", "operations", "saved_bytes"}
    assert all(line.startswith("torch visible: ") for line in lines)


def test_a_kernel_with_larger_tiles_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = baseline("triton")
    from backends.torch.kernels import depthwise

    monkeypatch.setitem(depthwise.CONV, 8, depthwise.Tiling(8, 7, 128))
    found = kernels.compile_for("conv", 8, "fp32")
    lines = guard.moved({"depthwise conv, side 8, float32": found._asdict()}, figures)
    assert {"registers", "spill_bytes"} <= {line.split(": ")[1].split(" ")[0] for line in lines}


def test_a_new_figure_needs_a_baseline() -> None:
    assert guard.moved({"torch visible": {"flops": 7}}, {}) == ["torch visible: flops has no baseline, found 7"]


def test_a_change_is_reported_with_both_values() -> None:
    before = {"jax masked": {"bytes": 1000, "flops": 1000}}
    found = {"jax masked": {"bytes": 1250, "flops": 1001}}
    assert guard.moved(found, before) == ["jax masked: bytes 1,000 -> 1,250 (+25.0%)"]
