"""Whatever is done with a checkpoint takes its run's values unless flags say otherwise, and says which."""

from pathlib import Path

import numpy as np
import pytest

import backends
import convert
import spec
from backends.initial import initial_arrays
from backends.protocol import State
from convert.models import describe
from convert.preparation import IMAGENET
from tests.train import fake
from tests.train.images import tree
from train.__main__ import main
from train.checkpoints import store
from train.config import Config, cli
from train.errors import TrainError

GOLDEN = Path(__file__).parents[2] / "parity_tests" / "golden"
IMAGES = "--input_size 16 --mean 0.3 --std 0.2 --in_chans 1"
KNOWN = {"input_size": (16,), "mean": (0.3,), "std": (0.2,), "in_chans": 1}
TASKS = ("finetune", "eval", "reconstruct", "analyse", "probe")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"), classes=2, each=12)


@pytest.fixture(scope="module")
def run_dir(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training run on grey images."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    fake.train(images, folder, "--max_steps", "1", *IMAGES.split())
    return folder


def parsed(task: str, path: Path, *flags: str) -> Config:
    return cli.parse(["--task", task, "--finetune", str(path), *flags])


@pytest.mark.parametrize("task", TASKS)
def test_every_task_takes_the_values_of_the_run(task: str, run_dir: Path, images: Path, tmp_path: Path) -> None:
    exported = tmp_path / "weights.safetensors"
    convert.save(convert.load(run_dir, weights_only=True), exported)
    for path in (run_dir, next((run_dir / "checkpoints").iterdir()), exported):
        config = parsed(task, path)
        assert config.flags().items() >= (KNOWN | {"data_path": str(images)}).items()
        (note,) = config.notes
        assert note.startswith(f"from the run of {path}: --input_size 16 --mean 0.3 --std 0.2 --data_path {images}")


def test_what_is_given_is_taken_and_a_difference_is_reported(run_dir: Path) -> None:
    config = parsed("eval", run_dir, "--mean", "0.5", "--std", "0.2", "--data_path", "elsewhere")
    assert (config.data.mean, config.data.std, config.data.data_path) == ((0.5,), (0.2,), "elsewhere")
    assert config.notes == (
        f"from the run of {run_dir}: --input_size 16 --mask_policy uniform --mask_ratio 0.6 --mask_rounding floor"
        " --in_chans 1",
        f"note: --mean is 0.5, the run of {run_dir} had 0.3",
    )


def test_what_the_run_left_off_is_compared_too(run_dir: Path) -> None:
    notes = parsed("eval", run_dir, "--exif", "True", "--image_bits", "12", "--crop_pct", "0.9").notes
    assert notes[1:] == (  # pre-training has no crop_pct
        f"note: --exif is True, the run of {run_dir} had False",
        f"note: --image_bits is 12, the run of {run_dir} had none",
    )
    assert len(parsed("eval", run_dir, "--exif", "False").notes) == 1


def test_data_to_evaluate_on_replaces_only_the_data(run_dir: Path, images: Path) -> None:
    config = parsed("eval", run_dir, "--eval_data_path", "elsewhere")
    assert config.flags().items() >= (KNOWN | {"data_path": str(images), "eval_data_path": "elsewhere"}).items()
    config = parsed("eval", GOLDEN / "official_classifier.pth", "--eval_data_path", "elsewhere")
    assert (config.data.input_size, config.data.mean, config.finetune.crop_pct) == ((224,), IMAGENET["mean"], None)
    config = parsed("eval", run_dir, "--data_path", "elsewhere", "--eval_data_path", "digits")
    assert config.finetune.crop_pct == 1.0


def test_another_checkpoint_in_the_same_plot_is_compared(run_dir: Path, images: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    fake.train(images, other, "--max_steps", "1", *IMAGES.replace("0.3", "0.6").split())
    notes = parsed("analyse", run_dir, "--against", str(other)).notes
    assert notes[1:] == (f"note: --mean is 0.3, the run of {other} had 0.6",)


def test_the_published_scripts_arguments_are_such_values(tmp_path: Path) -> None:
    loaded = convert.load(GOLDEN / "official_classifier.pth", weights_only=True)
    loaded.meta["args"] = {"input_size": 64, "crop_pct": 0.9, "imagenet_default_mean_and_std": False}
    convert.save(loaded, tmp_path / "official.pth", format="official-dense")
    expected = {"input_size": (64,), "crop_pct": 0.9, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    config = parsed("eval", tmp_path / "official.pth")
    assert config.flags().items() >= expected.items()
    assert config.notes[0].startswith(f"from {tmp_path / 'official.pth'}: --input_size 64 ")  # it is no run


def test_a_continued_run_is_not_affected(run_dir: Path) -> None:
    assert cli.parse(["--resume", str(run_dir)]) == cli.parse(["--resume", "absent"]).__class__.from_flags(
        **{**cli.parse([]).flags(), "resume": str(run_dir)}
    )


def test_a_resumed_run_keeps_its_values_without_the_checkpoint_it_began_from(images: Path, tmp_path: Path) -> None:
    flags = ["--task", "finetune", "--finetune", str(tmp_path / "gone"), "--output_dir", str(tmp_path / "run")]
    began = cli.parse([*flags, *IMAGES.split(), "--data_path", str(images)])
    model = spec.classifier(depths=(1,), dims=(4,), in_chans=1, patch_size=4, num_classes=2)
    meta = {"identity": {"task": "finetune", "model": describe(model)}, "config": began.as_dict()}
    store.save(tmp_path / "run" / "checkpoints", 1, State(initial_arrays(model, 0)), meta, keep=1)
    assert cli.parse(flags) == began
    assert cli.parse([*flags, "--mean", "0.7"]).data.mean == (0.7,)
    assert cli.parse([*flags, "--auto_resume", "False"]).data.mean != (0.3,)


def test_images_are_never_changed_without_a_flag(run_dir: Path, images: Path) -> None:
    same = ["--max_steps", "1", "--in_chans", "1", "--std", "0.2"]
    with pytest.raises(TrainError, match=r"--mean: the run began with 0\.3, now it is .*; give --mean 0\.3$"):
        fake.train(images, run_dir, *same)
    fake.train(images, run_dir, *same, "--mean", "0.3")


def test_images_that_are_not_rgb_have_a_default() -> None:
    """The mean over the channels; given values are kept."""
    config = cli.parse(["--data_path", "D", "--in_chans", "1"])
    assert (config.data.mean, config.data.std) == ((0.449,), (0.226,))
    assert cli.parse(["--data_path", "D", "--in_chans", "1", "--mean", "0.2"]).data.mean == (0.2,)


@pytest.mark.parametrize("backend", backends.installed())
@pytest.mark.parametrize("task", ["finetune", "probe"])
def test_a_grey_checkpoint_on_coloured_images(
    task: str, backend: str, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "x.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), np.uint8)
    np.savez(data, train_images=pixels, train_labels=np.arange(8) % 2, val_images=pixels, val_labels=np.arange(8) % 2)
    own = {"finetune": "--batch_size 4 --max_steps 1 --aa none", "probe": "--knn_k 1 --probe_l2 0.1"}[task]
    size = "--model none --depths 1 --dims 4 --patch_size 4"
    words = f"--task {task} --finetune {run_dir} --data_path {data} --backend {backend} {size} {own} --output_dir"
    assert main([*words.split(), str(tmp_path / "out")]) == 0
    assert f"from the run of {run_dir}: --input_size 16 --mean 0.3 --std 0.2 --in_chans 1\n" in capsys.readouterr().out


def test_a_stem_of_other_channels_is_made_by_the_advised_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from convert.__main__ import main as convert_main

    words = [
        "--task",
        "probe",
        "--finetune",
        str(GOLDEN / "official_fcmae.pth"),
        "--in_chans",
        "1",
        "--input_size",
        "32",
    ]
    common = ["--knn_k", "1", "--probe_l2", "0.1", "--train_labels", "20", "--output_dir", str(tmp_path / "out")]
    assert main([*words, *common]) == 2
    advised = capsys.readouterr().err.rpartition("twinnext convert ")[2].split()
    assert convert_main([str(tmp_path / "new") if word == "NEW" else word for word in advised]) == 0
    words[3] = str(tmp_path / "new")
    assert main([*words, *common]) == 0
