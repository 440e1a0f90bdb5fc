"""`twinnext stats`: numpy's statistics over the pixels, and flags that a run takes as they are printed."""

import re
from pathlib import Path

import numpy as np
import pytest

from parity_tests.tolerances import EPS, assert_close
from tests.train import fake
from tests.train.images import encoded, pixels
from tests.train.shards import arrays
from train.config import cli
from train.data.pixels import normalise
from train.stats import QUANTILES, main, measure
from twinnext.__main__ import main as twinnext

NOISE = np.random.default_rng(0)


def stats(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """The lines that it prints."""
    capsys.readouterr()
    assert main(words) == 0, capsys.readouterr().err
    return capsys.readouterr().out.splitlines()


def flags(lines: list[str]) -> list[str]:
    (line,) = (line for line in lines if re.match(r"--\w", line))
    return line.split()


def test_the_statistics_are_those_of_all_pixels() -> None:
    images = [NOISE.normal(1e4, 3.0, (side, 20, 4)) for side in (20, 24, 28)]
    found = measure(iter(images))
    pixels = np.concatenate([image.reshape(-1, 4) for image in images])
    for name, expected in {"mean": pixels.mean(0), "std": pixels.std(0), "low": pixels.min(0)}.items():
        assert_close(getattr(found, name), expected, 1e4 * EPS["float64"], name)
    assert_close(found.high, pixels.max(0), 1e4 * EPS["float64"], "high")
    assert_close(found.quantiles, np.percentile(pixels, QUANTILES, 0), 1e4 * EPS["float64"], "quantiles")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_the_printed_flags_normalise_the_data_of_a_run(
    tmp_path: Path, dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = NOISE.integers(0, 200, (6, 16, 20, 5)) * np.arange(1, 6) - (1 if dtype in ("int16", "float32") else 0)
    images = (images * (1e-4 if dtype == "float32" else 1)).astype(dtype)
    path = arrays(tmp_path / "x.npz", images=images, labels=np.arange(6) % 2)
    lines = stats(capsys, str(path), "--channel_axis", "last")
    pasted = flags(lines)
    assert pasted[:4] == ["--channel_axis", "last", "--in_chans", "5"]
    config = cli.parse(pasted)
    scaled = images if dtype == "uint8" else images.astype(np.float32) / (65535 if dtype == "uint16" else 1)
    normalised = normalise(scaled, config.data.mean, config.data.std).astype(np.float64)
    assert_close(1 + normalised.mean((0, 1, 2)), np.ones(5), 2**6 * EPS["float32"], "mean")
    assert_close(normalised.std((0, 1, 2)), np.ones(5), 2**6 * EPS["float32"], "std")
    fake.train(path, tmp_path / "run", *pasted, "--max_steps", "1", "--batch_size", "2")
    assert f"values: {dtype}" in capsys.readouterr().out


def test_the_flags_that_were_given_are_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = arrays(tmp_path / "x.npz", images=NOISE.integers(0, 4096, (6, 16, 16), np.uint16))
    lines = stats(capsys, str(path), "--image_bits", "12", "--num_images", "2")
    assert lines[1] == "2 of them with 1 channels; values: uint16 0..4095"
    assert flags(lines)[:4] == ["--image_bits", "12", "--in_chans", "1"]
    fake.train(path, tmp_path / "run", *flags(lines), "--max_steps", "1", "--batch_size", "2")


def test_small_negative_numbers_have_no_exponent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.float32(1e-6) * NOISE.normal(-1, 1, (4, 16, 16, 1)).astype(np.float32)
    lines = stats(capsys, str(arrays(tmp_path / "x.npz", images=images)), "--in_chans", "1")
    assert re.search(r"--mean -0\.00000\d+ --std 0\.00000\d+$", " ".join(flags(lines)))
    assert cli.parse(flags(lines)).data.mean[0] < 0


def test_a_channel_of_one_value_has_a_std_of_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = NOISE.normal(size=(4, 16, 16, 2)).astype(np.float32)
    images[..., 1] = 0.1
    lines = stats(capsys, str(arrays(tmp_path / "x.npz", images=images)), "--in_chans", "2")
    assert flags(lines)[-1] == "1"
    assert lines[-1] == "note: one value only in channels 1; their std of 0 is replaced by 1"


def test_broken_images_are_listed_and_the_rest_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(encoded(pixels(0), "PNG"))
    lines = stats(capsys, str(tmp_path))
    assert lines[1].endswith("a.png: an empty file")
    assert lines[2] == "1 of them with 3 channels; values: uint8 0..255"
    assert cli.parse(flags(lines)).data.mean == pytest.approx(pixels(0).reshape(-1, 3).mean(0) / 255)


def test_pixels_without_data_do_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = NOISE.integers(0, 256, (4, 16, 16), np.uint8)
    masks = NOISE.random((4, 8, 8)) < 0.5
    masks[3] = True
    path = arrays(tmp_path / "x.npz", images=images, clouds=masks.astype(np.uint8))
    lines = stats(capsys, str(path), "--mask_key", "clouds")
    kept = images[~masks.repeat(2, 1).repeat(2, 2)] / 255
    config = cli.parse(flags(lines))
    assert (config.data.mean[0], config.data.std[0]) == pytest.approx(
        (kept.mean(), kept.std()), rel=2**6 * EPS["float32"]
    )
    assert config.data.mask_key == "clouds"
    assert any(line.startswith("skipped: ") and "its mask leaves no pixel with data" in line for line in lines)


def test_most_images_decide_the_number_of_channels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(encoded(pixels(0)[..., 0], "PNG"))
    for name in "bc":
        (tmp_path / f"{name}.png").write_bytes(encoded(pixels(1), "PNG"))
    lines = stats(capsys, str(tmp_path))
    assert "note: 1 of 3 images have 1 channels, not 3, which --in_chans changes" in lines
    assert "3 of them with 3 channels; values: uint8 0..255" in lines


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("absent", "twinnext stats: DATA absent: no such folder or file"),
        (
            "{npz}",
            "twinnext stats: --channel_axis: the shape (16, 16, 2) does not tell which axis",
        ),
        ("{npz} --in_chans 3", "twinnext stats: --in_chans 3: {npz}: image 0 has 2 channels; give --in_chans 2"),
        ("{npz} --num_images 0", "twinnext stats: --num_images: 0 is below 1"),
        ("{npz} --exif True", "twinnext stats: --exif True: is for image files, and there are none; give --exif False"),
        ("{empty}", "twinnext stats: none of 1 images can be read; {empty}/a.png: an empty file"),
        ("{npz} --in_chan 2", "twinnext stats: unrecognized arguments: --in_chan 2; did you mean '--in_chans'?"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.png").write_bytes(b"")
    places = {"npz": arrays(tmp_path / "x.npz", images=np.zeros((2, 16, 16, 2))), "empty": tmp_path / "empty"}
    try:
        status = twinnext(["stats", *words.format(**places).split()])
    except SystemExit as leaving:
        status = leaving.code
    said = capsys.readouterr().err
    assert status == 2
    assert said.startswith(line.format(**places))
    assert said.count("\n") == 1
