"""The flags that messages about data advise work when given; one that is for no data of the run is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.train import fake
from tests.train.images import encoded, pixels, tree
from tests.train.shards import FILES, LABELS, arrays, pairs, shard, table
from train import run
from train.config import cli
from train.config.config import FLAGS as FLAG_TABLE
from train.data.decode import Decoding
from train.data.reading import DEFAULTS, KINDS, ReadOptions, read_options
from train.errors import TrainError
from train.tasks.finetune import Finetuning

NAMES = ("ant", "bee", "cat")
ONE_UPDATE = "--batch_size 2 --max_steps 1 --warmup_epochs 0 --epochs 1 --save_ckpt False"
FINETUNE = f"{fake.SHORT} {ONE_UPDATE} --task finetune --aa none"
FLAGS = {"pretrain": f"{fake.QUICK} {ONE_UPDATE}", "finetune": f"{FINETUNE} --disable_eval True"}
"""Task -> the flags of one update."""

GREY = ("--in_chans", "1", "--mean", "0", "--std", "1")
VALUES = {"exif": "True", "image_bits": "12", "channel_axis": "first"}
"""Values of the flags that take no name."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def train(data: Path, task: str, *flags: str) -> None:
    """One update of a task on some data."""
    words = [*FLAGS[task].split(), "--data_path", str(data), "--output_dir", str(data.parent / "run"), *flags]
    run.train(cli.parse(words), lambda name: fake.Backend)


def refused(data: Path, *flags: str, task: str = "finetune") -> str:
    """The one line with which a run is refused."""
    with pytest.raises(TrainError) as error:
        train(data, task, *flags)
    assert "\n" not in str(error.value)
    return str(error.value)


def advised(line: str) -> list[list[str]]:
    """The flags with values that a line advises."""
    return [words.split(" ") for words in re.findall(r"--\w+ [\w.:]+", line.rpartition("give ")[2])]


def about(label: int) -> str:
    return json.dumps({"label": label, "name": NAMES[label]})


def test_the_key_of_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shard(tmp_path / "x.tar", pairs(range(6), about, "json"))
    line = refused(path)
    assert advised(line) == [["--label_key", "json:FIELD"]]
    fields = re.findall(r"it has (\w+), (\w+)", refused(path, *advised(line)[0]))[0]
    assert fields == ("label", "name")
    for field in fields:
        train(path, "finetune", "--label_key", f"json:{field}")
    assert "training: 6 images in 3 classes: ant (2), bee (2), cat (2)" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
def test_the_key_of_images(tmp_path: Path, task: str) -> None:
    members = [*pairs(range(6)), *((f"{n:03}.seg.png", encoded(pixels(9), "PNG")) for n in range(6))]
    path = shard(tmp_path / "x.tar", members)
    flags = advised(refused(path, task=task))
    assert flags == [["--image_key", "jpg"], ["--image_key", "seg.png"]]
    for flag in flags:
        train(path, task, *flag)


def test_the_column_of_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "x.parquet", labels=None, kind=[NAMES[n] for n in LABELS], size=list("sllssl"))
    flags = advised(refused(path))
    assert flags == [["--label_column", "kind"], ["--label_column", "size"]]
    for flag in flags:
        train(path, "finetune", *flag)
    said = capsys.readouterr().out
    assert "ant (2), bee (2), cat (2)" in said
    assert "l (3), s (3)" in said


def test_the_column_of_images(tmp_path: Path) -> None:
    path = table(tmp_path / "x.parquet", one=FILES, two=FILES[::-1])
    flags = advised(refused(path))
    assert flags == [["--image_column", "one"], ["--image_column", "two"]]
    for flag in flags:
        train(path, "finetune", *flag)


def test_the_bits_of_grey_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(tmp_path / "images", each=0)
    for number in range(4):
        deep = np.linspace(0, 4095 - number, 400).astype(np.uint16).reshape(20, 20)
        (root / f"c{number % 2}" / f"{number}.png").write_bytes(encoded(deep, "PNG"))
    line = refused(root)
    assert line.startswith("--mean and --std: their values are for uint8 0..255, the images are uint16 0..65535; give")
    train(root, "finetune", "--image_bits", "12", "--mean", "0.5", "--std", "0.3")
    assert "values: uint16 0..4095, normalised as (value / 4095 - mean) / std, mean 0.5" in capsys.readouterr().out
    line = refused(root, "--image_bits", "11", "--mean", "0.5", "--std", "0.3")
    assert "4 images in a row are broken" in line
    assert re.search(r"its values reach 4,09\d, more than --image_bits 11 allows; leave it out", line)


def test_the_limit_of_pixels(tmp_path: Path) -> None:
    root = tree(tmp_path / "images")
    line = refused(root, "--max_image_pixels", "2000")
    assert "its 56 x 40 pixels exceed 2,000; raise --max_image_pixels" in line
    train(root, "finetune", "--max_image_pixels", "2240")


def test_every_way_of_reading_is_a_flag() -> None:
    words = "--image_key jpg --label_key txt --image_column a --label_column b --mask_key m --mask_column c --exif True"
    config = cli.parse([*words.split(), *["--max_image_pixels", "9", "--image_bits", "12", "--channel_axis", "last"]])
    assert read_options(config.data) == ReadOptions("jpg", "txt", "a", "b", Decoding(True, 9, 12, "last"), "m", "c")
    assert read_options(cli.parse([]).data) == DEFAULTS


@pytest.mark.parametrize("name", KINDS)
def test_a_flag_for_other_data_is_refused(tmp_path: Path, name: str) -> None:
    value = VALUES.get(name, "x")
    task = "finetune" if "finetune" in FLAG_TABLE[name].tasks else "pretrain"
    line = refused(Path("digits"), f"--{name}", value, task=task)
    assert line.startswith(f"--{name} {value}: is for {KINDS[name]}, and there are none; give --{name} ")
    (flag,) = advised(line)
    train(arrays(tmp_path / "x.npz", images=np.zeros((4, 16, 16), np.uint8)), "pretrain", *flag, *GREY)


def test_arrays_have_no_exif(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "0.npy", np.zeros((16, 16, 3), np.uint8))
    assert (
        refused(tmp_path, "--exif", "True") == "--exif True: is for image files, and there are none; give --exif False"
    )


def test_the_axis_of_channels(tmp_path: Path) -> None:
    path = arrays(tmp_path / "x.npz", images=np.zeros((4, 12, 16, 12), np.float32), labels=np.arange(4) % 2)
    bands = ["--in_chans", "12", "--mean", "0", "--std", "1"]
    flags = advised(refused(path, *bands))
    assert flags == [["--channel_axis", "first"], ["--channel_axis", "last"]]
    for flag in flags:
        train(path, "finetune", *bands, *flag)


def test_colour_operations_are_refused_for_other_images(tmp_path: Path) -> None:
    deep = arrays(tmp_path / "x.npz", images=np.zeros((4, 16, 16, 3), np.uint16), labels=np.arange(4) % 2)
    flags = ["--mean", "0", "--std", "1", "--aa", "rand-m9-mstd0.5-inc1"]
    line = refused(deep, *flags)
    assert (
        line
        == "--aa rand-m9-mstd0.5-inc1: is for uint8 images, grey or RGB, not for 3 channels of uint16; give --aa none"
    )
    train(deep, "finetune", *flags[:-1], "none", "--rot90", "0.75", "--reprob", "1", "--mixup", "0.5", "--cutmix", "1")


def test_training_and_evaluation_have_one_unit(tmp_path: Path) -> None:
    named = {"train_labels": np.arange(4) % 2, "val_labels": np.arange(4) % 2}
    images = np.zeros((4, 16, 16, 1), np.uint16)
    path = arrays(tmp_path / "x.npz", train_images=images, val_images=images.astype(np.float32), **named)
    with pytest.raises(TrainError, match=r"^--mean: is in one unit, the images are uint16 0..65535 and float32 as is"):
        Finetuning(cli.parse([*FINETUNE.split(), "--data_path", str(path), *GREY]))


def test_a_flag_for_the_images_to_evaluate_on_alone_is_used(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", classes=3)
    path = shard(tmp_path / "val.tar", pairs(range(6), lambda label: f"c{label}", "txt"))
    flags = ["--eval_data_path", str(path), "--label_key", "txt"]
    assert "--label_key txt: is for tar shards" in refused(root, *flags)  # without evaluation
    words = [*FINETUNE.split(), "--data_path", str(root), *flags]
    batches = Finetuning(cli.parse(words)).eval_batches
    assert batches is not None
    assert batches.source.classes == ("c0", "c1", "c2")
