"""The figures of a row, the choice of rows, one-line errors, workers, and plots of sweeps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spec
from benchmarks import curves, engines, outside, peaks, tables, worker
from benchmarks.__main__ import main
from benchmarks.engines import Row

JOB: dict[str, Any] = {
    "backend": "torch",
    "engine": "visible",
    "compiled": False,
    "model": "convnextv2_atto",
    "batch_size": 8,
    "image_size": 224,
    "mask_ratio": 0.6,
    "dtype": "float32",
    "what": "gradient",
    "part": "encoder",
    "device": None,
}
PEAK = peaks.Peak(0.2, 40, "a test")
TINY = spec.fcmae(depths=(1,), dims=(8,), decoder_dim=8, image_size=8, patch_size=4)


def row(seconds: list[float], **changed: Any) -> Row:
    return Row(JOB | changed, seconds, 10**9, 7.0)


def test_a_row_has_its_median_quartiles_throughput_and_warm_up() -> None:
    found = row([5.0, 1.0, 2.0, 3.0, 4.0])
    assert (found.median, found.quartiles, found.throughput, found.warm_up) == (3.0, (2.0, 4.0), 8 / 3, 4.0)
    assert row([2.0]).quartiles == (2.0, 2.0)
    assert Row.of(json.loads(json.dumps(found.as_dict()))) == found


def test_every_row_has_its_share_of_the_roofline() -> None:
    rows = [row([0.4], engine="masked"), row([0.1]), row([0.2], backend="timm", engine="dense")]
    shares = [each["of_limit"] for each in tables.document(rows, PEAK)["rows"]]
    assert shares[1] == tables.limit(JOB, PEAK) / 0.1
    assert shares[1] == 4 * shares[0] == 2 * shares[2]
    lines = tables.table(rows, PEAK).splitlines()[5:8]
    assert [line.split()[8] for line in lines] == ["1.00x", "4.00x", "2.00x"]


def test_fewer_visible_patches_have_a_lower_limit() -> None:
    limits = [tables.limit(JOB | {"mask_ratio": ratio}, PEAK) for ratio in (0.0, 0.3, 0.6, 0.9)]
    assert limits == sorted(limits, reverse=True)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            "engines --mask_ratio 0 --tflops 1 --gbps 1",
            "--mask_ratio 0: nothing is removed, so there is no loss; add --part encoder",
        ),
        (
            "engines --what step --part encoder --tflops 1 --gbps 1",
            "--what step: a step trains the whole model; leave out --part encoder",
        ),
        ("engines --tflops 3", "--tflops and --gbps: give both, or neither and --peak"),
        ("roofline convnextv2_base --peak v5e", "--peak v5e: is for bfloat16, not float32; add --dtype bfloat16"),
        ("engines --engines no --tflops 1 --gbps 1", "--engines no: not an engine of"),
        ("data --batch_size 40", "--batch_size 40: mixing works on groups of 32; give a multiple"),
    ],
)
def test_a_mistake_is_one_line(command: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"benchmarks: {line}")
    assert error.count("\n") == 1


def test_a_peak_is_published_or_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(peaks, "REPEATS", 1)
    peaks.main("float32", "cpu")
    found = peaks.Peak(*json.loads(capsys.readouterr().out))
    assert 1e-3 < found.tflops < 1e3
    assert 0.1 < found.gbps < 1e4
    assert peaks.find("h200", "bfloat16").gbps == 4800


@pytest.mark.parametrize(
    ("backend", "what"),
    [
        ("torch", "forward"),
        ("torch", "gradient"),
        ("torch", "step"),
        ("jax", "gradient"),
        pytest.param("jax", "forward", marks=pytest.mark.slow),
        pytest.param("jax", "step", marks=pytest.mark.slow),
    ],
)
def test_a_worker_computes_and_measures_memory(backend: str, what: str) -> None:
    pytest.importorskip(backend)
    job = JOB | {"backend": backend, "what": what, "part": "fcmae", "batch_size": 2, "image_size": 8}
    prepare = {"torch": worker._torch, "jax": worker._jax}[backend]
    run, memory = prepare(job, *worker.inputs(job, TINY))
    run()
    assert isinstance(memory(run), int)


def test_engines_measures_ours_beside_timm(tmp_path: Path) -> None:
    if not outside.has_timm():
        pytest.skip("timm is not installed")
    out = tmp_path / "rows.json"
    command = "engines --backends torch --engines visible dense --part encoder --batch_size 1 --image_size 64"
    options = ["--rounds", "2", "--tflops", "0.2", "--gbps", "40", "--json", str(out)]
    assert main([*command.split(), *options]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [Row.of(each).label for each in rows] == ["torch visible", "timm dense"]
    for each in rows:
        assert len(each["seconds"]) == 2
        assert 0 < each["of_limit"] < 1
        assert each["peak_bytes"] > 0


def test_timm_is_compared_with_encoders_only() -> None:
    def labels(**changed: Any) -> list[str]:
        options = JOB | {"backends": ["torch"], "engines": ["visible", "dense"], "compiled": False} | changed
        return [job["backend"] for job in engines.jobs(type("Args", (), options)())]

    if not outside.has_timm():
        pytest.skip("timm is not installed")
    assert labels() == ["torch", "timm"]
    assert labels(part="fcmae") == ["torch"]
    assert labels(engines=["visible"]) == ["torch"]


def test_a_time_that_does_not_fall_with_the_mask_ratio_is_reported() -> None:
    falling = [row([second], mask_ratio=ratio) for ratio, second in ((0.0, 0.4), (0.6, 0.2), (0.9, 0.1))]
    assert curves.rises(falling) == []
    lines = curves.rises([*falling, row([0.15], mask_ratio=0.95)])
    assert lines == ["torch visible: no faster at mask ratio 0.95 than at 0.9 (0.100 and 0.150 s)"]
    masked = [row([0.4], mask_ratio=ratio, engine="masked") for ratio in (0.0, 0.6)]
    assert curves.rises(masked) == []


def test_sweeps_are_plotted_together(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for backend in ("torch", "jax"):
        for over, values in (("mask_ratio", (0.0, 0.6)), ("batch_size", (2, 4))):
            rows = [row([0.2, 0.1, 0.3], backend=backend, **{over: value}) for value in values]
            (tmp_path / f"{backend}-{over}.json").write_text(json.dumps(tables.document(rows, PEAK, over)))
    files = sorted(map(str, tmp_path.glob("*.json")))
    pictures = [tmp_path / "one.svg", tmp_path / "other.svg"]
    for picture in pictures:
        assert main(["plot", *files, "--out", str(picture)]) == 0
    text = pictures[0].read_text()
    assert text == pictures[1].read_text()
    assert len(text) < 60_000
    for word in ("torch visible", "jax visible", "mask ratio", "batch size"):
        assert word in text


def test_a_step_starts_from_uint8_images() -> None:
    class Trainer:
        def step(self, batches: Any, lr: float) -> dict[str, float]:
            (self.batch,) = batches
            return {"loss": 1.0}

    trainer = Trainer()
    _, batch = worker.inputs(JOB, TINY)
    assert worker._steps(trainer, batch)() == 1.0  # type: ignore[arg-type]
    assert trainer.batch["images"].dtype == np.uint8
    assert trainer.batch["images"].std() > 50
