"""Feature collapse: the paper's formula, pair by pair, and the same figures from both frameworks."""

import csv
from pathlib import Path

import numpy as np
import pytest

import backends
import convert
import spec
from convert.surgery import encoder_only
from parity_tests.tolerances import EPS, FORWARD, GRADIENT, assert_close
from tests.convert.samples import checkpoint
from tests.train.images import tree
from train.__main__ import main
from train.data.decode import decode
from train.data.pixels import normalise
from train.data.supervised import eval_crop
from train.report import plots
from train.tasks.analyse import cosine_distance

GOLDEN = Path(__file__).parents[2] / "parity_tests" / "golden"
FCMAE, CLASSIFIER = GOLDEN / "official_fcmae.pth", GOLDEN / "official_classifier.pth"
BLOCKS = 5


def same(found: float, expected: float) -> None:
    """Up to rounding; a distance may be 0, what it leaves of 1 may not."""
    assert_close(np.array(1 - found), np.array(1 - expected), FORWARD * EPS["float64"] * 8, "distance")


def by_pairs(features: np.ndarray) -> float:
    """The formula as printed in the paper."""
    channels = features.reshape(-1, features.shape[-1]).T
    total = 0.0
    for x in channels:
        for y in channels:
            total += (1 - x @ y / (np.linalg.norm(x) * np.linalg.norm(y))) / 2
    return total / len(channels) ** 2


@pytest.mark.parametrize("shape", [(5, 7, 12), (1, 1, 6), (4, 4, 1), (3, 2, 40)])
def test_the_distance_is_the_sum_over_pairs(shape: tuple[int, ...]) -> None:
    features = np.random.default_rng(0).normal(size=shape) + 0.3
    same(cosine_distance(features), by_pairs(features))


def test_equal_channels_have_no_distance_and_orthogonal_ones_half() -> None:
    one = np.random.default_rng(0).normal(size=(4, 4, 1))
    same(cosine_distance(one * np.array([1.0, 3.0, 1e-3, 1e3])), 0)
    same(cosine_distance(np.eye(16).reshape(4, 4, 16)), 0.5 * (1 - 1 / 16))
    same(cosine_distance(np.concatenate([one, -one], -1)), 0.5)


def test_dead_channels_are_alike_and_unlike_the_rest() -> None:
    features = np.zeros((4, 4, 8))
    assert cosine_distance(features) == 0
    features[..., :4] = np.eye(16)[:, :4].reshape(4, 4, 4)
    same(cosine_distance(features), (1 - (4 + 4**2) / 8**2) / 2)  # four directions of one channel, one of four
    features[..., 4:] = 1e-20 * np.random.default_rng(0).normal(size=(4, 4, 4))
    same(cosine_distance(features), (1 - (4 + 4**2) / 8**2) / 2)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"), classes=2, each=2)


def analyse(out: Path, images: Path, *flags: str) -> list[dict[str, str]]:
    """The rows that the command writes."""
    words = ["--task", "analyse", "--input_size", "64", "--data_path", str(images), "--output_dir", str(out), *flags]
    assert main(words) == 0
    with (out / "cosine_distance.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_both_frameworks_find_the_same(images: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.npz"
    made = checkpoint(spec.classifier(depths=(1, 2), dims=(8, 12), num_classes=2))
    for name, param in spec.parameters(made.model).items():  # as if trained: of unit gain, with a GRN that acts
        made.arrays[name] *= np.prod(param.shape[1:]) ** -0.5 if param.decays else 0.2
        made.arrays[name] += param.init == 1.0
    convert.save(made, small)
    flags = ("--finetune", str(small), "--precision", "float64", "--num_images", "3")
    ours, theirs = (analyse(tmp_path / name, images, *flags, "--backend", name) for name in backends.NAMES)
    for column in ("mean", "std"):
        found, expected = (np.array([float(row[column]) for row in rows]) for rows in (ours, theirs))
        assert_close(found, expected, GRADIENT["float64"] * EPS["float64"], column)
        assert found.min() > 0
    blocks = ("stages.0.0", "stages.1.0", "stages.1.1")
    expected = [(block, output) for output in ("act", "grn") for block in blocks]
    assert [(row["layer"], row["output"]) for row in ours] == expected


def test_v1_is_compared_before_grn_which_it_does_not_have(images: Path, tmp_path: Path) -> None:
    v1 = tmp_path / "v1.npz"
    convert.save(checkpoint(spec.classifier(depths=(1, 2), dims=(8, 12), num_classes=2, block="v1")), v1)
    flags = ("--finetune", str(v1), "--against", str(CLASSIFIER), "--backend", "torch")
    rows = analyse(tmp_path / "out", images, *flags)
    own = [(row["layer"], row["output"]) for row in rows if row["checkpoint"] == str(v1)]
    assert own == [(block, "act") for block in ("stages.0.0", "stages.1.0", "stages.1.1")]
    assert len(rows) == 3 + 2 * BLOCKS
    drawn = (tmp_path / "out" / "cosine_distance.svg").read_text()
    assert f"{v1.name}, after GELU" in drawn
    assert f"{v1.name}, after GRN" not in drawn


def test_the_figures_are_those_of_the_intermediates(images: Path, tmp_path: Path) -> None:
    """One image, by hand: the table holds the figures of the backend's intermediates."""
    image = images / "c1" / "0.jpg"
    rows = analyse(tmp_path, images, "--finetune", str(CLASSIFIER), "--images", str(image), "--backend", "torch")
    loaded, framework = convert.load(CLASSIFIER), backends.load("torch")
    module = framework.build(loaded.model)
    framework.set_arrays(module, {name: np.asarray(loaded.arrays[name]) for name in loaded.arrays})
    pixels = eval_crop(decode(image.read_bytes(), 3), (64, 64), 0.875)[None]
    intermediates = framework.forward(
        module, normalise(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), intermediates=True
    )
    for row in rows:
        features = intermediates[f"{row['layer']}.{row['output']}"]
        assert features.shape[-1] == 4 * intermediates[f"{row['layer']}.norm"].shape[-1]
        same(float(row["mean"]), by_pairs(features.astype(np.float64)))
        assert float(row["std"]) == 0


def test_encoders_alone_and_several_checkpoints_share_a_plot(images: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder.safetensors"
    convert.save(encoder_only(convert.load(FCMAE)), encoder)
    flags = ("--finetune", str(FCMAE), "--against", str(encoder), str(CLASSIFIER), "--backend", "torch")
    rows = analyse(tmp_path / "out", images, *flags)
    figures = {path: [row["mean"] for row in rows if row["checkpoint"] == str(path)] for path in (FCMAE, encoder)}
    assert figures[FCMAE] == figures[encoder]
    assert len(rows) == 3 * 2 * BLOCKS
    drawn = (tmp_path / "out" / "cosine_distance.svg").read_text()
    assert all(f"{path.name}, after GRN" in drawn for path in (FCMAE, encoder, CLASSIFIER))
    assert drawn.count(plots.LIGHT["curve-2"]) >= 2
    assert not any(key in drawn for key in plots.KEYS.values())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "--task analyse: give the checkpoint with --finetune or --resume"),
        ("--finetune {fcmae} --against {folder}/none.pth", "{folder}/none.pth: no such file or folder"),
        ("--finetune {fcmae} --in_chans 1 --mean 0 --std 1", "--in_chans 1: the model in {fcmae} takes 3"),
        ("--finetune {fcmae} --input_size 64 --images none.png", "--images none.png: no such file"),
        ("--finetune {fcmae} --input_size 50", "image_size: the height 50 is no multiple"),
        ("--finetune {fcmae} --input_size 64 --output_dir /proc/out", "--output_dir /proc/out: cannot be written"),
    ],
)
def test_a_mistake_is_one_line(
    images: Path, tmp_path: Path, words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"fcmae": FCMAE, "folder": images}
    flags = ["--data_path", str(images), "--output_dir", str(tmp_path / "out"), *words.format(**places).split()]
    assert main(["--task", "analyse", "--backend", "torch", *flags]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"train: {line.format(**places)}")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
