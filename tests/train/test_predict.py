"""`--task predict`: the classes of images by name, the same in both frameworks, as an evaluation sees them."""

import csv
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import backends
import spec
from backends.initial import initial_arrays
from backends.protocol import State
from parity_tests import tolerances
from parity_tests.strategies import Case
from tests.train.images import encoded, pixels, tree
from train.__main__ import main
from train.checkpoints import store
from train.config import cli
from train.data.pixels import normalise
from train.data.sources import open_source
from train.data.supervised import EvalBatches

GOLDEN = Path(__file__).parents[2] / "parity_tests" / "golden"
MODEL = spec.classifier(depths=(1, 1), dims=(8, 16), stem_stride=4, num_classes=7)
NAMES = ("ant", "bee", "cat, tame", "dog", "eel", "fox", "caf\u00e9")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"), classes=2, each=3)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuning run with class names and values of its own."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    arrays = initial_arrays(MODEL, 0)
    arrays["head.weight"] += np.random.default_rng(0).normal(size=(7, 16)).astype(np.float32)
    words = f"--task finetune --data_path gone --input_size 24 --mean {MEAN} --std {STD}".translate(
        dict.fromkeys(b"(),")
    )
    meta = {"identity": {"model": asdict(MODEL)}, "classes": NAMES, "config": cli.parse(words.split()).as_dict()}
    store.save(folder / "checkpoints", 1, State(arrays), meta, keep=1)
    return folder


def predict(run_dir: Path, *words: str) -> int:
    return main(["--task", "predict", "--finetune", str(run_dir), "--batch_size", "4", *words])


def expected(run_dir: Path, images: Path) -> np.ndarray:
    """The probabilities by hand, from the pixels that an evaluation sees."""
    source = open_source(str(images))
    batch, _ = EvalBatches(source, (0, 0), 3, (24, 24), 224 / 256, len(source))(0)
    backend = backends.load("torch")
    module = backend.build(MODEL)
    backend.set_arrays(module, store.newest(run_dir / "checkpoints", print).state.params)
    logits = backend.forward(module, normalise(batch["images"], MEAN, STD))["logits"].astype(np.float64)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_both_frameworks_predict_what_an_evaluation_sees(
    run_dir: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = expected(run_dir, images)
    order = np.argsort(-truth, axis=1)[:, :5]
    bound = tolerances.forward("float32", Case(MODEL, (3, 3), 9))
    for name in backends.NAMES:
        file = tmp_path / f"{name}.csv"
        capsys.readouterr()
        assert predict(run_dir, "--images", str(images), "--backend", name, "--output", str(file)) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[0].startswith(f"from the run of {run_dir}: --input_size 24 --mean 0.4 0.5 0.6 --std 0.2 0.3 0.4")
        assert said[1].startswith("values: uint8 0..255, normalised as (value / 255 - mean) / std, mean 0.4 0.5 0.6, ")
        assert said.pop(2).startswith("6 images without labels; ")
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        assert [row["image"] for row in rows[::5]] == [str(path) for path in sorted(images.rglob("*.jpg"))]
        assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4, 5] * 6
        assert [int(row["class"]) for row in rows] == order.ravel().tolist()
        assert [row["name"] for row in rows] == [NAMES[number] for number in order.ravel()]
        found = np.array([float(row["probability"]) for row in rows])
        tolerances.assert_close(found, np.take_along_axis(truth, order, 1).ravel(), bound, name)
        for line, row in zip(said[2:8], rows[::5], strict=True):
            assert line.startswith(f"{row['image']}: {row['name']} {float(row['probability']):.3f}, ")


def test_lines_of_json_hold_the_same(run_dir: Path, images: Path, tmp_path: Path) -> None:
    words = ["--images", str(images / "c1" / "*.jpg"), str(images / "c0" / "0.jpg"), "--backend", "torch", "--output"]
    for suffix in ("csv", "jsonl"):
        assert predict(run_dir, *words, str(tmp_path / f"x.{suffix}")) == 0
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    named = ["c1/0.jpg", "c1/1.jpg", "c1/2.jpg", "c0/0.jpg"]
    assert [line["image"] for line in lines] == [str(images / name) for name in named]
    flat = [(line["image"], rank, *top.values()) for line in lines for rank, top in enumerate(line["top"], 1)]
    assert [list(map(str, each)) for each in flat] == [list(row.values()) for row in rows]


def test_a_broken_image_costs_a_line_and_the_status(
    run_dir: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"no image")
    (tmp_path / "in" / "b.png").write_bytes(encoded(pixels(1), "PNG"))
    (tmp_path / "in" / "notes.txt").write_text("no image")
    file = tmp_path / "x.jsonl"
    words = ["--backend", "torch", "--output", str(file), "--images"]
    assert predict(run_dir, *words, str(tmp_path / "in"), str(images / "c0" / "1.jpg")) == 1
    said = capsys.readouterr().out
    assert "3 images without labels; left out: 1 file that is no image (notes.txt); " in said
    assert f"skipped: {tmp_path}/in/a.jpg: " in said
    assert [json.loads(line)["image"] for line in file.read_text().splitlines()] == [
        str(tmp_path / "in" / "b.png"),
        str(images / "c0" / "1.jpg"),
    ]
    assert predict(run_dir, "--backend", "torch", "--images", str(tmp_path / "in" / "a.jpg")) == 2
    assert capsys.readouterr().err == "train: --images: none of the 1 images can be read\n"


def test_classes_without_names_are_numbers_and_data_is_predicted_too(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = GOLDEN / "official_classifier.pth"
    assert predict(golden, "--data_path", str(images), "--input_size", "64", "--backend", "torch") == 0
    said = capsys.readouterr().out
    assert "note: the checkpoint has no class names; classes are numbers\n" in said
    assert f"\n{images}/c0/0.jpg: " in said
    assert said.count(".jpg: ") == 6


def test_the_part_of_divided_data_is_named(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path / "train", classes=1, each=2)
    tree(tmp_path / "val", classes=1, each=1)
    words = ["--backend", "torch", "--data_path", str(tmp_path)]
    for more, part, count in (([], "val", 1), (["--split", "train"], "train", 2)):
        assert predict(run_dir, *words, *more) == 0
        said = capsys.readouterr().out
        assert said.count(f"{tmp_path}/{part}/c0/") == said.count(".jpg: ") == count
        assert (f"note: the validation part of {tmp_path}; --split train names that for training" in said) == (not more)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--finetune {fcmae} --images {image}", "{fcmae}: has no classification head; train one with --task finetune"),
        ("--images {folder}/none*.png", "--images {folder}/none*.png: no file matches this pattern"),
        ("--images {folder}/none.png", "--images {folder}/none.png: no such file"),
        ("--images {empty}", "--images {empty}: no image below it"),
        ("--images {data}", "--images {data}: a data set, not an image; give it as --data_path"),
        ("--images {image} --split train", "--split: is for images of --data_path; all of --images are used"),
        ("--images {image} --output x.txt", "--output x.txt: the suffix says what to write; give .csv or .jsonl"),
        ("--images {image} --output {image}.csv", "--output {image}.csv: exists already; delete it, or name another"),
        ("--images {image} --output /proc/x.csv", "--output /proc/x.csv: cannot be written: "),
        ("--images {image} --input_size 30", "image_size: the height 30 is no multiple"),
    ],
)
def test_a_mistake_is_one_line(
    run_dir: Path, images: Path, tmp_path: Path, words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes((images / "c0" / "0.jpg").read_bytes())
    (tmp_path / "a.jpg.csv").touch()
    (tmp_path / "empty").mkdir()
    (data := tmp_path / "a.npz").touch()
    places = {"fcmae": GOLDEN / "official_fcmae.pth", "image": image, "folder": tmp_path, "empty": tmp_path / "empty"}
    places["data"] = data
    assert predict(run_dir, "--backend", "torch", *words.format(**places).split()) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"train: {line.format(**places)}")
    assert said.count("\n") == 1
