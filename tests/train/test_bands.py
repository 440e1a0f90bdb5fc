"""Images of 12 bands of 16 bits, in both frameworks: statistics, pre-training, fine-tuning, evaluation, pictures."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import backends
import convert
from backends.protocol import Arrays
from parity_tests.tolerances import TRAJECTORY, assert_all_close, assert_same
from tests.train import test_stats
from train import stats
from train.__main__ import main
from train.checkpoints import store

SIZE = (
    "--model none --depths 1 --dims 8 --patch_size 4 --input_size 16 --batch_size 4 --epochs 2 --warmup_epochs 0"
    " --rot90 0.75 --num_workers 1 --precision float64"
)
PRETRAIN = f"{SIZE} --decoder_embed_dim 8 --parity_check False --picture_freq 1 --picture_channels 3 2 1"
FINETUNE = f"{SIZE} --task finetune --aa none --mixup 0.5 --cutmix 0.5 --crop_pct 1"

each_backend = pytest.mark.parametrize("backend", backends.installed())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, each brighter in other bands, as TIFFs with channels first; train/ and val/."""
    root, noise = tmp_path_factory.mktemp("bands"), np.random.default_rng(0)
    spectra = np.stack([np.linspace(500, 9000, 12), np.linspace(9000, 500, 12)])
    for number in range(16):
        image = spectra[number % 2][:, None, None] * noise.uniform(0.5, 1.5, (12, 20, 24))
        place = root / ("val" if number >= 12 else "train") / f"c{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(place / f"{number}.tif", image.astype(np.uint16), planarconfig="separate")
    return root


def said(words: list[str]) -> str:
    """What a command prints."""
    printed, wrong = io.StringIO(), io.StringIO()
    with redirect_stdout(printed), redirect_stderr(wrong):
        assert main(words) == 0, wrong.getvalue()
    return printed.getvalue()


@pytest.fixture(scope="module")
def flags(data: Path) -> list[str]:
    """The data, and the flags that stats prints for it."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert stats.main([str(data)]) == 0
    return ["--data_path", str(data), *test_stats.flags(printed.getvalue().splitlines())]


@pytest.fixture(scope="module")
def runs(data: Path, flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each framework a folder of runs: pretrained, the same interrupted, and finetuned; output.txt of the first."""
    found = {name: tmp_path_factory.mktemp(name) for name in backends.installed()}
    for name, place in found.items():
        first = [*PRETRAIN.split(), *flags, "--backend", name, "--output_dir"]
        (place / "output.txt").write_text(said([*first, f"{place}/pretrained"]))
        said([*first, f"{place}/cut", "--stop_at_step", "2"])
        said([*first, f"{place}/cut"])
        tuned = [*FINETUNE.split(), "--data_path", str(data), "--backend", name, "--output_dir", f"{place}/finetuned"]
        said([*tuned, "--finetune", f"{place}/pretrained"])
    return found


def params(run: Path) -> Arrays:
    """The parameters at the end of a run."""
    found = store.newest(run / "checkpoints", print)
    assert found is not None
    return found.state.params


@each_backend
def test_the_first_lines_tell_range_and_pictures(backend: str, runs: dict[str, Path]) -> None:
    text = (runs[backend] / "output.txt").read_text()
    assert "values: uint16 0..65535, normalised as (value / 65535 - mean) / std, mean 0." in text
    assert "pictures: channels 3 2 1, each stretched from its 2 to its 98 % quantile" in text
    assert len(list((runs[backend] / "pretrained" / "pictures").iterdir())) == 2


@each_backend
def test_an_interrupted_run_ends_bit_identical(backend: str, runs: dict[str, Path]) -> None:
    assert_same(params(runs[backend] / "cut"), params(runs[backend] / "pretrained"), "params")


@pytest.mark.skipif(len(backends.installed()) < 2, reason="needs both frameworks")
@pytest.mark.parametrize("run", ["pretrained", "finetuned"])
def test_both_frameworks_train_alike(run: str, runs: dict[str, Path]) -> None:
    one, other = (params(place / run) for place in runs.values())
    assert_all_close(one, other, TRAJECTORY["float64"], run)


@each_backend
def test_reconstructions_show_the_chosen_bands(backend: str, runs: dict[str, Path], tmp_path: Path) -> None:
    words = ["--task", "reconstruct", "--num_images", "4", "--backend", backend, "--output_dir", str(tmp_path)]
    text = said([*words, "--finetune", str(runs[backend] / "pretrained")])
    assert "--picture_channels 3 2 1" in text
    assert "pictures: channels 3 2 1, each stretched" in text
    with Image.open(tmp_path / "reconstruction-00.png") as sheet:
        colours = np.asarray(sheet).reshape(-1, 3).astype(int)
    assert (np.ptp(colours, axis=1) > 20).any()  # the bands differ


OTHERS = ("eval --batch_size 3", "probe --knn_k 3", "analyse --num_images 2", "predict", "embed --output {out}/x.npz")


@pytest.mark.parametrize("task", OTHERS)
def test_the_other_tasks_take_what_the_run_says(task: str, data: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    backend, place = next(iter(runs.items()))
    words = [*task.format(out=tmp_path).split(), "--finetune", f"{place}/finetuned", "--data_path", str(data)]
    words += ["--output_dir", str(tmp_path)] if task.startswith(("probe", "analyse")) else []
    text = said(["--task", *words, "--backend", backend])
    assert "values: uint16 0..65535, normalised as (value / 65535 - mean) / std, mean 0." in text
    assert "--in_chans 12" in text


def test_a_checkpoint_of_three_channels_starts_a_model_of_twelve(flags: list[str], tmp_path: Path) -> None:
    backend = ["--backend", backends.installed()[0], "--max_steps", "1", "--output_dir"]
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "rgb.npz", images=images)
    words = [*PRETRAIN.split(), "--picture_channels", "0", "--data_path", str(tmp_path / "rgb.npz")]
    said([*words, *backend, f"{tmp_path}/rgb"])
    text = said([*FINETUNE.split(), *flags, "--finetune", f"{tmp_path}/rgb", *backend, f"{tmp_path}/tuned"])
    assert f"{tmp_path}/rgb: stem: 3 channels to 12, inflated: kernels repeated and divided by the copies" in text
    assert convert.load(tmp_path / "tuned").model.encoder.in_chans == 12


def test_deep_images_need_their_own_normalisation(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*PRETRAIN.split(), "--data_path", str(data), "--in_chans", "12", "--output_dir", str(tmp_path / "run")]
    assert main(words) == 2
    line = capsys.readouterr().err
    assert line.startswith(
        "train: --mean and --std: their values are for uint8 0..255, the images are uint16 0..65535;"
    )
    assert line.endswith("; give both, as twinnext stats DATA prints them\n")
    assert not (tmp_path / "run").exists()
