"""`--task embed`: the probe's features, or maps of stages, in files; the same in both frameworks and after a kill."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import backends
import convert
import spec
from parity_tests import tolerances
from parity_tests.strategies import Case
from tests.project.tree import ROOT
from tests.train.images import tree
from train.__main__ import main
from train.config import cli
from train.data.sources import open_source
from train.tasks import embed, features
from train.tasks.evaluate import untrained

GOLDEN = ROOT / "parity_tests" / "golden"
FCMAE = GOLDEN / "official_fcmae.pth"
Capture = pytest.CaptureFixture[str]
SIZE = "--input_size 32 64 --batch_size 2 --num_workers 1"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of two classes, one of them broken."""
    root = tree(tmp_path_factory.mktemp("images"), classes=2, each=5)
    (root / "c0" / "3.jpg").write_bytes(b"no image")
    return root


def words(images: Path, file: Path, *more: str) -> list[str]:
    common = ["--task", "embed", "--finetune", str(FCMAE), "--data_path", str(images), "--output", str(file)]
    return [*common, *SIZE.split(), "--backend", "torch", *more]


def arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as found:
        return dict(found)


def model() -> spec.Model:
    return spec.Classifier(replace(convert.load(FCMAE).model.encoder, grn_scope="image"), 2)


@pytest.fixture(scope="module")
def pooled(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("features") / "x.npz"
    assert main(words(images, file)) == 1  # one image is broken
    assert not file.with_name("x.npz.part").exists()
    return file


def test_the_features_are_those_of_the_probe(images: Path, pooled: Path) -> None:
    found = arrays(pooled)
    assert found.keys() == {"features", "index", "image", "label", "classes"}
    assert found["index"].tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    source = open_source(str(images))
    assert found["image"].tolist() == [source.name(number) for number in found["index"].tolist()]
    assert found["label"].tolist() == [0] * 4 + [1] * 5
    assert found["classes"].tolist() == ["c0", "c1"]
    flags = ["--task", "probe", "--finetune", str(FCMAE), "--data_path", str(images), "--backend", "torch"]
    config = cli.parse([*flags, *SIZE.split()])
    probed, weights = features.encoder(config, 2)
    backend = backends.load("torch")
    cluster = backend.init_cluster("cpu")
    trainer = untrained(config, backend, cluster, probed, weights, {})
    expected, _, _ = features.extract(config, trainer, cluster, source, source.classes)
    np.testing.assert_array_equal(found["features"], expected.values)
    assert found["features"].dtype == np.float32


def test_both_frameworks_find_the_same(images: Path, pooled: Path, tmp_path: Path) -> None:
    case = Case(model(), (1, 2), 2)
    bound = tolerances.forward("float32", case)
    file = tmp_path / "x.parquet"
    assert main(words(images, file, "--backend", "jax")) == 1
    table, expected = pq.read_table(file), arrays(pooled)
    assert table.column_names == ["image", "index", "label", "class", "features"]
    assert table["image"].to_pylist() == expected["image"].tolist()
    assert table["index"].to_pylist() == expected["index"].tolist()
    assert table["class"].to_pylist() == expected["classes"][expected["label"]].tolist()
    found = np.array(table["features"].to_pylist(), np.float32)
    tolerances.assert_close(found, expected["features"], bound, "pooled")


def test_maps_of_stages_are_those_of_the_module(images: Path, tmp_path: Path) -> None:
    found = {}
    for name in backends.NAMES:
        file = tmp_path / f"{name}.npz"
        assert main(words(images, file, "--backend", name, "--stages", "3", "1")) == 1
        found[name] = arrays(file)
        assert found[name].keys() == {"stage1", "stage3", "index", "image", "label", "classes"}
    bound = tolerances.forward("float32", Case(model(), (1, 2), 2))
    source = open_source(str(images))
    config = cli.parse(words(images, tmp_path / "y.npz"))
    batch, _ = features.eval_batches(config, source, (0, 1))(0)
    backend, (backbone, weights) = backends.load("torch"), features.stages_encoder(config)
    module = backend.build(backbone)
    backend.set_arrays(module, weights)
    out = backend.forward(module, (batch["images"] / 255 - config.data.mean) / config.data.std)
    for name, stage in (("stage1", (9, 4, 8, 16)), ("stage3", (9, 1, 2, 32))):
        assert found["torch"][name].shape == stage
        tolerances.assert_close(found["torch"][name][:2], out[name], bound, name)
        tolerances.assert_close(found["jax"][name], found["torch"][name], bound, name)
    file = tmp_path / "x.parquet"
    assert main(words(images, file, "--stages", "1")) == 1
    np.testing.assert_array_equal(pq.read_table(file)["stage1"].chunk(0).to_numpy_ndarray(), found["torch"]["stage1"])


class Killed(Exception):
    """Stands for a signal that ends the process."""


@pytest.mark.parametrize("at", [1, 3, 9])
@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_a_killed_command_continues_to_the_same_bytes(
    images: Path, tmp_path: Path, at: int, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Killed while it writes a column of a batch: of two columns, of five batches."""
    whole, cut = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
    assert main(words(images, whole)) == 1
    fsync, calls = os.fsync, []

    def killed(handle: int) -> None:
        calls.append(handle)
        if len(calls) == at:
            raise Killed
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr("train.tasks.growing.os.fsync", killed)
        with pytest.raises(Killed):
            main(words(images, cut))
    assert not cut.exists()
    capsys.readouterr()
    assert main(words(images, cut)) == 1
    assert ("continued from image" in capsys.readouterr().out) == (at == 9)
    assert cut.read_bytes() == whole.read_bytes()
    assert not cut.with_name(f"cut.{kind}.part").exists()


SLOW = """
import sys, time
from train.__main__ import main
from train.data import supervised
crop = supervised.eval_crop
supervised.eval_crop = lambda *given: (time.sleep(0.3), crop(*given))[1]
main(sys.argv[1:])
"""
"""A command that takes three seconds for its images."""


def test_a_process_that_is_killed_continues_too(images: Path, pooled: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    process = subprocess.Popen([sys.executable, "-c", SLOW, *words(images, file)], cwd=ROOT)
    index, deadline = tmp_path / "x.npz.part" / "index.bin", time.monotonic() + 240
    while not (index.exists() and index.stat().st_size):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not file.exists()
    assert main(words(images, file)) == 1
    assert file.read_bytes() == pooled.read_bytes()


def test_only_the_same_features_are_continued(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.npz"

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(embed, "_fill", killed)
        with pytest.raises(Killed):
            main(words(images, file))
    capsys.readouterr()
    assert main(words(images, file, "--batch_size", "4")) == 2
    folder = tmp_path / "x.npz.part"
    assert capsys.readouterr().err == (
        f"train: --output {file}: {folder} was begun with other --batch_size (2, now 4);"
        " give the same to continue, or delete the folder\n"
    )
    assert main(words(images, file, "--num_workers", "2")) == 1


def test_images_given_one_by_one_have_no_labels(images: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    common = ["--task", "embed", "--finetune", str(FCMAE), "--output", str(file), *SIZE.split(), "--backend", "torch"]
    assert main([*common, "--images", str(images / "c1" / "*.jpg")]) == 0
    found = arrays(file)
    assert found.keys() == {"features", "index", "image"}
    assert found["image"].tolist() == [str(images / "c1" / f"{number}.jpg") for number in range(5)]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("--output none", "--output none: the suffix says what to write; give .npz or .parquet"),
        ("--stages 4", "stages: "),
        ("--input_size 50", "image_size: the height 50 is no multiple"),
        ("--data_path {folder}/none", "--data_path {folder}/none: no such folder"),
        ("--data_path {folder}/broken", "--data_path: none of the 1 images can be read"),
    ],
)
def test_a_mistake_is_one_line(
    images: Path, tmp_path: Path, more: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").touch()
    flags = words(images, tmp_path / "x.npz", *more.format(folder=tmp_path).split())
    assert main(flags) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"train: {line.format(folder=tmp_path)}")
    assert said.count("\n") == 1
    assert main(["--task", "embed", "--finetune", str(FCMAE)]) == 2
    assert "--task embed: give the file to write with --output, .npz or .parquet" in capsys.readouterr().err
