"""Evaluation end to end: classes by name from every source, the right part of the data, and what was skipped."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest

import backends
import convert
import spec
from backends.initial import initial_arrays
from backends.protocol import Arrays, State
from tests.train import fake
from tests.train.images import encoded, pixels
from tests.train.shards import shard, table
from train.__main__ import main
from train.checkpoints import store
from train.data import pixels as data_pixels
from train.data.decode import decode

SIDE, COUNT = 16, 12
MODEL = spec.classifier(depths=(1,), dims=(16,), stem_stride=4, num_classes=COUNT)
SIZE = f"--input_size {SIDE} --crop_pct 1 --batch_size 5 --num_workers 1"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FRUITS = ("pear", "fig", "lime", "apple", "caf\u00e9", "date", "kiwi", "plum", "nut", "olive", "banana", "melon")
"""Class names, in an order that is not theirs as text."""

TEXT_ORDER = tuple(sorted(map(str, range(COUNT))))
"""Folders 0 to 11 in the order in which a trainer sorts them: 0, 1, 10, 11, 2, ..."""


def stray(data: bytes) -> bytes:
    """A JPEG with bytes that do not belong before a marker, of which libjpeg warns."""
    place = data.index(b"\xff\xdb")
    return data[:place] + b"\0\0\0" + data[place:]


IMAGES = [
    *(stray(encoded(pixels(seed, SIDE, SIDE))) for seed in range(3)),
    *(encoded(pixels(seed, SIDE, SIDE), mode="CMYK") for seed in range(3, 6)),
    *(encoded(pixels(seed, SIDE, SIDE), "PNG") for seed in range(6, COUNT)),
]
"""An image of each class of the model."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    """The parameters of a model that gives image i to class i: a row of the head is the features of its image."""
    found, backend = initial_arrays(MODEL, 0), backends.load(backends.installed()[0])
    module = backend.build(MODEL)
    backend.set_arrays(module, found)
    images = np.stack([decode(data, 3) for data in IMAGES])
    features = backend.forward(module, data_pixels.normalise(images, MEAN, STD))["features"]
    centred = features - features.mean(0)
    found["head.weight"] = 100 * centred
    found["head.bias"] = -50 * (centred**2).sum(1) - 100 * centred @ features.mean(0)
    return {name: np.asarray(array, np.float32) for name, array in found.items()}


def folders(root: Path, names: Sequence[str]) -> Path:
    """Image i in the folder names[i]."""
    for name, data in zip(names, IMAGES, strict=True):
        (root / name).mkdir(parents=True)
        (root / name / "x").write_bytes(data)
    return root


def run_of_ours(path: Path, arrays: Arrays, classes: Sequence[str]) -> Path:
    """A run's folder."""
    store.save(
        path / "checkpoints", 1, State(arrays), {"identity": {"model": asdict(MODEL)}, "classes": classes}, keep=1
    )
    return path


def transformers_folder(path: Path, arrays: Arrays, names: Sequence[str]) -> Path:
    """A folder as save_pretrained writes it: the keys of id2label are strings and sorted as such."""
    convert.save(convert.Checkpoint(MODEL, arrays), path, format="hf")
    config = json.loads((path / "config.json").read_text())
    config["id2label"] = {str(number): name for number, name in enumerate(names)}
    (path / "config.json").write_text(json.dumps(config, sort_keys=True))
    return path


def evaluate(backend: str, checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str], task: str = "eval") -> str:
    """What an evaluation prints."""
    capsys.readouterr()
    words = ["--task", task, "--backend", backend, "--finetune", str(checkpoint), "--data_path", str(data)]
    assert main([*words, *SIZE.split()]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


each_backend = pytest.mark.parametrize("backend", backends.installed())


@each_backend
def test_the_names_of_a_run_are_matched(
    backend: str, arrays: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folders(tmp_path / "data", [normalize("NFD", name) for name in FRUITS])
    said = evaluate(backend, run_of_ours(tmp_path / "run", arrays, FRUITS), data, capsys)
    assert "acc1 100.00, " in said
    assert "note: " not in said


@each_backend
def test_the_names_of_transformers_are_matched(
    backend: str, arrays: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folders(tmp_path / "data", FRUITS)
    said = evaluate(backend, transformers_folder(tmp_path / "hf", arrays, FRUITS), data, capsys)
    assert "acc1 100.00, " in said
    assert "order is assumed" not in said


@each_backend
def test_numbered_folders_are_in_the_order_of_the_trainer(
    backend: str, arrays: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, bare = folders(tmp_path / "data", TEXT_ORDER), tmp_path / "bare.pth"
    convert.save(convert.Checkpoint(MODEL, arrays), bare, format="official-dense")
    said = evaluate(backend, bare, data, capsys)
    assert "acc1 100.00, " in said
    assert "note: the checkpoint has no class names; the data's order is assumed: 0 is class 0, 9 is class 11" in said


def members(labels: Sequence[int]) -> list[tuple[str, bytes]]:
    """Image i with the label labels[i], as members of a tar."""
    texts = [(f"{number:03}.cls", str(label).encode()) for number, label in enumerate(labels)]
    return [pair for text, data in zip(texts, IMAGES, strict=True) for pair in (text, (f"{text[0][:3]}.jpg", data))]


def parquet(path: Path, labels: Sequence[int]) -> None:
    table(path, labels, FRUITS, image=[{"bytes": data, "path": None} for data in IMAGES])


@each_backend
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_only_the_validation_part_is_evaluated(
    backend: str, kind: str, arrays: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write = {"tar": lambda path, labels: shard(path, members(labels)), "parquet": parquet}[kind]
    right, wrong = list(range(COUNT)), list(range(COUNT))[::-1]
    for part, labels in (("train", wrong), ("validation", right), ("test", wrong)):
        write(tmp_path / "data" / f"{part}-0.{kind}", labels)
    names = FRUITS if kind == "parquet" else [str(number) for number in right]
    said = evaluate(backend, run_of_ours(tmp_path / "run", arrays, names), tmp_path / "data", capsys)
    assert "12 images in 12 classes" in said
    assert "left out: the test part" in said
    assert "acc1 100.00, " in said


FINETUNE = (
    f"--task finetune --model none --depths 1 --dims 16 --patch_size 4 {SIZE} --aa none --reprob 0 --max_steps 1"
    " --epochs 1 --warmup_epochs 0"
)


@each_backend
def test_a_run_with_unpublished_test_labels_ends_well(
    backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "validation", "test"):
        labels = [-1] * COUNT if part == "test" else list(range(COUNT))
        parquet(tmp_path / "data" / "default" / part / "0000.parquet", labels)
    words = [*FINETUNE.split(), "--backend", backend, "--data_path", str(tmp_path / "data")]
    assert main([*words, "--output_dir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "evaluation: 12 images in 12 classes" in said
    assert said.count("left out: the test part") == 2


@pytest.mark.parametrize("task", ["eval", "probe", "finetune"])
def test_images_whose_labels_are_not_published_are_not_evaluated_on(
    task: str, arrays: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parquet(tmp_path / "train.parquet", list(range(COUNT)))
    parquet(tmp_path / "test.parquet", [-1] * COUNT)
    run = run_of_ours(tmp_path / "run", arrays, FRUITS)
    words = {"eval": "--task eval", "probe": "--task probe --knn_k 1", "finetune": FINETUNE}[task]
    flags = ["--finetune", str(run), "--data_path", str(tmp_path / "train.parquet"), *SIZE.split()]
    hidden = ["--eval_data_path", str(tmp_path / "test.parquet")]
    assert main([*words.split(), *flags, *hidden, "--output_dir", str(tmp_path / task)]) == 2
    said = capsys.readouterr().err
    assert "--eval_data_path: images without labels cannot be evaluated on; each label is -1" in said


@each_backend
@pytest.mark.parametrize("task", ["eval", "probe", "finetune"])
def test_skipped_images_are_counted_beside_the_score(
    backend: str, task: str, arrays: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data" / "train", FRUITS)
    data = folders(tmp_path / "data" / "val", FRUITS)
    (data / "fig" / "broken.jpg").write_bytes(IMAGES[0][:100])
    run = run_of_ours(tmp_path / "run", arrays, FRUITS)
    words = {"eval": "--task eval", "probe": "--task probe --knn_k 1", "finetune": FINETUNE}[task]
    flags = ["--backend", backend, "--finetune", str(run), "--data_path", str(tmp_path / "data"), *SIZE.split()]
    assert main([*words.split(), *flags, "--output_dir", str(tmp_path / task)]) == 0
    said = capsys.readouterr().out
    assert said.count("broken.jpg: ") == 1
    scores = [line for line in said.splitlines() if "acc1" in line]
    assert len(scores) == {"eval": 1, "probe": 2, "finetune": 1}[task]
    assert all(", over 12 of 13 images (1 could not be read)" in line for line in scores)
    files = {"eval": "eval.json", "probe": "probe.json", "finetune": "metrics.jsonl"}
    text = (tmp_path / task / files[task]).read_text()
    lines = [json.loads(line) for line in (text.splitlines() if task == "finetune" else [text])]
    assert [line["eval_skipped"] for line in lines if "eval_skipped" in line] == [1]


@pytest.mark.parametrize("task", ["eval", "probe --knn_k 1"])
def test_no_score_without_an_image(
    task: str, arrays: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data" / "train", FRUITS)
    for name in FRUITS[:2]:
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        (tmp_path / "data" / "val" / name / "x.jpg").write_bytes(b"")
    run = run_of_ours(tmp_path / "run", arrays, FRUITS)
    words = f"--task {task} --finetune {run} --data_path {tmp_path}/data --output_dir {tmp_path}/out {SIZE}"
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("train: none of the 2 images to evaluate on can be read; ")
    assert said.endswith("x.jpg: an empty file\n")


def test_what_is_left_out_is_printed_before_the_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folders(tmp_path / "data", FRUITS)
    (data / "grape").mkdir()
    (data / "fig" / "notes.txt").write_text("no image")
    fake.train(data, tmp_path / "run", "--epochs", "1", "--warmup_epochs", "0", "--print_freq", "1")
    before, _, after = capsys.readouterr().out.partition("step 1/1")
    assert after
    assert "12 images in 12 classes: apple (1), " in before
    assert "left out: 1 folder without images (grape), 1 file that is no image (fig/notes.txt)" in before


@pytest.mark.parametrize("task", ["eval", "probe --knn_k 1", "analyse", "analyse --images {data}/train/fig/x"])
def test_every_task_reads_images_as_its_flags_say(
    task: str, arrays: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "data", run_of_ours(tmp_path / "run", arrays, FRUITS)
    folders(data / "train", FRUITS)
    folders(data / "val", FRUITS)
    size = SIZE if "analyse" not in task else f"--input_size {SIDE} --crop_pct 1"
    words = f"--task {task} --finetune {run} --data_path {data} --output_dir {tmp_path}/out {size}".format(data=data)
    assert main([*words.split(), "--max_image_pixels", str(SIDE**2)]) == 0
    capsys.readouterr()
    assert main([*words.split(), "--max_image_pixels", str(SIDE**2 - 1)]) == 2
    said = "".join(capsys.readouterr())
    assert "its 16 x 16 pixels exceed 255; raise --max_image_pixels" in said
    assert re.search(r"train: .*none of the \d+ images .*can be read", said)
