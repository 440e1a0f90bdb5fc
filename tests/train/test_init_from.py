"""Pre-training from the weights of another checkpoint: what is taken, on other images, in both frameworks."""

from pathlib import Path

import numpy as np
import pytest

import backends
import convert
import spec
from backends.initial import initial_arrays
from convert.surgery import STEM, encoder_only, with_channels
from parity_tests import tolerances
from tests.train import fake
from tests.train.images import tree
from train.__main__ import main
from train.checkpoints import store
from train.config import cli
from train.errors import TrainError
from train.tasks.pretrain import Pretraining

GOLDEN = Path(__file__).parents[2] / "parity_tests" / "golden"
FCMAE, CLASSIFIER = GOLDEN / "official_fcmae.pth", GOLDEN / "official_classifier.pth"
OTHERS = (
    "--mask_ratio 0.5 --input_size 64 --batch_size 8 --max_steps 2 --warmup_epochs 0 --blr 0.1 --parity_check False"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"), classes=2, each=8)


def flags(path: Path, images: Path, *more: str) -> list[str]:
    """Those of pre-training with an encoder of the checkpoint's size."""
    encoder = convert.load(path).model.encoder
    sizes = {"depths": encoder.depths, "dims": encoder.dims, "patch_size": (encoder.patch_size,)}
    words = [word for name, value in sizes.items() for word in (f"--{name}", *map(str, value))]
    common = ["--model", "none", *words, "--data_path", str(images), *OTHERS.split(), "--picture_freq", "0"]
    return [*common, "--init_from", str(path), *more]


def started(path: Path, images: Path, *more: str) -> tuple[spec.FCMAE, dict[str, np.ndarray], str]:
    """The model, the parameters that it starts from, and what is said of them."""
    lines: list[str] = []
    task = Pretraining(cli.parse(flags(path, images, *more)))
    arrays = task.first_arrays(lines.append)
    assert arrays is not None
    return task.model, arrays, "\n".join(lines)


def taken(model: spec.FCMAE, arrays: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> set[str]:
    """The names of the arrays that are the checkpoint's; all others must be the initial ones."""
    fresh = initial_arrays(model, 0)
    found = {name for name in arrays if name in theirs and np.array_equal(arrays[name], theirs[name])}
    for name in arrays.keys() - found:
        np.testing.assert_array_equal(arrays[name], fresh[name])
    return {name for name in found if not np.array_equal(arrays[name], fresh[name])}


def test_everything_that_fits_is_taken_at_another_image_size(images: Path) -> None:
    theirs = convert.load(FCMAE)
    decoder = ["--decoder_embed_dim", str(theirs.model.decoder_dim), "--decoder_depth", "2"]
    model, arrays, said = started(FCMAE, images, *decoder)
    assert model.image_size != theirs.model.image_size
    found = taken(model, arrays, dict(theirs.arrays))
    assert found == set(theirs.arrays)
    assert {name.partition(".")[0] for name in arrays.keys() - found} == {"decoder"}  # its second block
    count = sum(name.startswith("encoder.") for name in found)
    assert said.startswith(f"from {FCMAE}: encoder ({count}), proj (2), mask_token (1), decoder (")
    assert "; initialised: decoder (" in said
    assert said.endswith("; not taken: nothing")


def test_the_encoder_alone_is_taken_if_asked_for_or_if_no_more_is_there(images: Path, tmp_path: Path) -> None:
    theirs = convert.load(FCMAE)
    model, arrays, said = started(FCMAE, images, "--init_scope", "encoder", "--decoder_embed_dim", "16")
    found = taken(model, arrays, dict(theirs.arrays))
    assert found == {name for name in theirs.arrays if name.startswith("encoder.")}
    assert "; initialised: proj (2), mask_token (1), decoder (" in said
    model, arrays, said = started(CLASSIFIER, images)
    classifier = {f"encoder.{name}": array for name, array in convert.load(CLASSIFIER).arrays.items()}
    found = taken(model, arrays, classifier)
    assert found == {name for name in arrays if name.startswith("encoder.")}
    assert said.endswith("; not taken: norm (2), head (2)")


def test_a_stem_of_other_channels_is_made_and_said(images: Path, tmp_path: Path) -> None:
    """Of the rest, only the decoder's last layer, which predicts pixels, does not fit."""
    theirs = convert.load(FCMAE)
    width = str(theirs.model.decoder_dim)
    model, arrays, said = started(FCMAE, images, "--in_chans", "1", "--decoder_embed_dim", width)
    stem = with_channels(encoder_only(theirs), 1).arrays[STEM]
    found = taken(model, arrays, {**theirs.arrays, f"encoder.{STEM}": stem})
    assert found == {name for name in theirs.arrays if not name.startswith("pred.")}
    assert f"{FCMAE}: stem: 3 channels to 1, merged: kernels summed" in said
    assert said.endswith("; initialised: pred (2); not taken: pred (2)")


def test_both_frameworks_start_from_it_and_learn_the_same(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = []
    for name in backends.NAMES:
        words = flags(FCMAE, images, "--backend", name, "--precision", "float64", "--opt_betas", "0.8", "0.9")
        assert main([*words, "--output_dir", str(tmp_path / name)]) == 0
        said = capsys.readouterr().out
        assert f"from {FCMAE}: encoder (" in said
        ends.append(store.newest(tmp_path / name / "checkpoints", print).state)
        assert main([*words, "--max_steps", "3", "--output_dir", str(tmp_path / name)]) == 0
        assert f"from {FCMAE}: encoder (" not in capsys.readouterr().out  # resumed
    for part in ("params", "mu", "nu"):
        one, other = (getattr(state, part) for state in ends)
        tolerances.assert_all_close(one, other, tolerances.TRAJECTORY["float64"], part)


def test_the_values_of_its_run_are_taken_unless_given(images: Path, tmp_path: Path) -> None:
    fake.train(images, tmp_path, "--max_steps", "1", "--mean", "0.3", "--std", "0.2")
    config = cli.parse(["--init_from", str(tmp_path), "--data_path", "elsewhere", "--input_size", "32"])
    assert (config.data.mean, config.data.std) == ((0.3,), (0.2,))
    assert (config.data.data_path, config.data.input_size) == ("elsewhere", (32,))
    assert config.notes[-1] == f"note: --input_size is 32, the run of {tmp_path} had 16"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "--init_from {fcmae} --depths 1 1 --dims 8 8",
            "--init_from {fcmae}: its encoder differs; give --model none --",
        ),
        ("--init_from {folder}/none.pth", "--init_from {folder}/none.pth: no such file or folder"),
        (
            "--init_from {fcmae} --resume {fcmae}",
            "--init_from: --resume continues a run from its own weights; give",
        ),
        ("--init_scope encoder", "--init_scope encoder: is for --init_from; give it, too, or leave this out"),
        ("--opt_betas 0.9", "--opt_betas: (0.9,) is not two numbers below 1, such as 0.9 0.95"),
        ("--opt_betas 0.9 1", "--opt_betas: (0.9, 1.0) is not two numbers below 1"),
        ("--opt_betas -1 0.9", "--opt_betas: "),
    ],
)
def test_a_mistake_is_one_line(
    images: Path, tmp_path: Path, words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"fcmae": FCMAE, "folder": tmp_path}
    common = (
        f"--data_path {images} --output_dir {tmp_path}/run --backend torch {OTHERS} --model none --depths 1 --dims 8"
    )
    assert main([*common.split(), *words.format(**places).split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"train: {line.format(**places)}")
    assert said.count("\n") == 1
    assert not (tmp_path / "run" / "config.toml").exists()


def test_betas_are_as_published_unless_given() -> None:
    for task, betas in (("pretrain", (0.9, 0.95)), ("finetune", (0.9, 0.999))):
        resolved = cli.read(["--task", task, "--data_path", "D"])
        assert resolved.config.adamw().betas == betas
        assert cli.parse(["--task", task, "--opt_betas", "0.9", "0.98"]).adamw().betas == (0.9, 0.98)
    with pytest.raises(TrainError, match="--task eval does not use it"):
        cli.parse(["--task", "eval", "--opt_betas", "0.9", "0.95"])
