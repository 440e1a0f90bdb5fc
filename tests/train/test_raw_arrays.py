"""IDX and STL-10 files: what they hold is read to the bit, with the labels beside them, or refused in one line."""

import gzip
import pickle
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.train.images import encoded
from tests.train.shards import LABELS, arrays, idx, shard
from train.data.classes import describe, require_several
from train.data.feed import read
from train.data.idx import read_idx
from train.data.sources import open_eval, open_source
from train.errors import TrainError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5), np.uint8)
"""(N, H, W)"""

NUMBERS = np.array(LABELS, np.uint8)

SPELLINGS = ("train-{}-idx{}-ubyte", "train-{}.idx{}-ubyte", "emnist-letters-train-{}-idx{}-ubyte", "{}-idx{}-ubyte")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def mnist(root: Path, suffix: str = ".gz") -> Path:
    """A folder as MNIST is published: six images for training, two for the test."""
    for part, count in (("train", 6), ("t10k", 2)):
        idx(root / f"{part}-images-idx3-ubyte{suffix}", IMAGES[:count])
        idx(root / f"{part}-labels-idx1-ubyte{suffix}", NUMBERS[:count])
    return root


def refused(path: Path) -> str:
    with pytest.raises(TrainError) as error:
        open_source(str(path))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_images_and_labels_of_every_spelling(tmp_path: Path, spelling: str, suffix: str) -> None:
    file = idx(tmp_path / "data" / f"{spelling.format('images', 3)}{suffix}", IMAGES)
    idx(tmp_path / "data" / spelling.format("labels", 1), NUMBERS)
    for path in (file, file.parent, file.parent / "*images*"):
        source = pickle.loads(pickle.dumps(open_source(str(path))))
        assert (list(source.labels), source.classes) == (LABELS, ("0", "1", "2"))
        np.testing.assert_array_equal([read(source, index, 1)[0][..., 0] for index in range(6)], IMAGES)
        assert source.name(2) == f"{file}: image 2"
        assert "left out" not in describe(source)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32", "float64"])
def test_every_type_is_read_to_the_bit(tmp_path: Path, dtype: str) -> None:
    array = np.stack([IMAGES, IMAGES[:, ::-1]], -1).astype(dtype)
    found = read_idx(idx(tmp_path / "images-idx4", array))
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, array)
    if dtype != "int32":
        source = open_source(str(tmp_path / "images-idx4"))
        np.testing.assert_array_equal(read(source, 1, 2)[0], source.reading.values.scaled(array[1]))


def test_the_test_part_is_taken_by_name_only(tmp_path: Path) -> None:
    root = mnist(tmp_path / "mnist")
    assert describe(open_source(str(root))).endswith("0 (2), 1 (2), 2 (2); left out: the test part")
    with pytest.raises(TrainError, match="no part of it is for validation, only test") as error:
        open_eval(str(root), "--data_path")
    named = re.findall(r"\((.*?)\)", str(error.value))
    assert [len(open_eval(*shlex.split(path), "--eval_data_path")) for path in named] == [2, 6]


def test_compressed_copies_and_other_files_are_left_out(tmp_path: Path) -> None:
    root = mnist(mnist(tmp_path / "MNIST" / "raw"), "")
    idx(root / "extra-labels-idx1-ubyte", NUMBERS)
    idx(root / "train-labels.idx1-ubyte" / "train-labels.idx1-ubyte", NUMBERS)  # a folder
    source = open_source(str(root.parent))
    assert source.name(0) == f"{root}/train-images-idx3-ubyte: image 0"
    shown = "6 other entries (extra-labels-idx1-ubyte, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz, ...)"
    assert f"left out: {shown}, the test part" in describe(source)


def test_without_labels_all_images_are_one_class(tmp_path: Path) -> None:
    source = open_source(str(idx(tmp_path / "train-images-idx3-ubyte.gz", IMAGES)))
    assert describe(source) == "6 images without labels"
    with pytest.raises(
        TrainError, match=r"one class; put the class numbers \(N,\) beside .*images-idx3-ubyte\.gz, as "
    ) as error:
        require_several(source, "--data_path")
    idx(tmp_path / str(error.value).rpartition(" ")[2], NUMBERS)
    assert require_several(open_source(str(tmp_path)), "--data_path") == 3


def test_a_fingerprint_sees_other_labels(tmp_path: Path) -> None:
    file = idx(tmp_path / "images-idx3-ubyte", IMAGES)
    prints = {open_source(str(file)).fingerprint}
    for labels in (NUMBERS, 2 - NUMBERS):
        idx(tmp_path / "labels-idx1-ubyte", labels)
        prints.add(open_source(str(file)).fingerprint)
    same = arrays(tmp_path / "x.npz", images=IMAGES, labels=2 - NUMBERS)
    assert len(prints) == 3
    assert open_source(str(same)).fingerprint in prints


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda data: b"", "not an IDX file of 1 to 4 axes; it is empty"),
        (lambda data: b"\x89PNG" + data, "it begins with the bytes 89 50 4e 47, 00 00 08 03 would be uint8 (N, H, W)"),
        (lambda data: data[:2] + b"\x0a" + data[3:], "it begins with the bytes 00 00 0a 03"),
        (lambda data: data[:3] + b"\x05" + data[4:], "it begins with the bytes 00 00 08 05"),
        (lambda data: data[:10], "10 bytes (decompressed), but uint8(6, 0, 0) takes 16; truncated or damaged"),
        (lambda data: data[:-1], "135 bytes (decompressed), but uint8(6, 4, 5) takes 136; truncated or damaged"),
        (lambda data: data + b"\0", "137 bytes (decompressed), but uint8(6, 4, 5) takes 136"),
        (
            lambda data: data[:4] + b"\xff" * 12,
            "16 bytes (decompressed), but uint8(4294967295, 4294967295, ",
        ),
        (lambda data: gzip.compress(data)[:-9], "cannot be read (Compressed file ended before the end"),
        (lambda data: gzip.compress(data)[:-8] + bytes(8), "cannot be read (CRC check failed"),
        (lambda data: gzip.compress(data)[:10] + b"\xff" * 40, "cannot be read (Error -3 while decompressing"),
        (lambda data: data[:4] + bytes(12), "is uint8(0, 0, 0), not (N, H, W), (N, H, W, C) or (N, C, H, W)"),
        (lambda data: data[:3] + b"\x02" + data[4:8] + b"\0\0\0\x14" + data[16:], "is uint8(6, 20), not (N, H, W)"),
    ],
)
def test_a_file_that_is_no_idx_of_images_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], line: str
) -> None:
    file = idx(tmp_path / "data" / "train-images-idx3-ubyte", IMAGES)
    file.write_bytes(change(file.read_bytes()))
    for path in (file, file.parent):
        assert refused(path).startswith(f"--data_path {file}")
        assert line in refused(path)


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (NUMBERS[:5], "is uint8(5,), not a class number for each of 6 images"),
        (NUMBERS.astype(np.int8) - 1, "is int8(6,), not a class number"),
        (NUMBERS.astype(np.float32), "is float32(6,), not a class number"),
        (NUMBERS.astype(np.int32) + 10**6, "has the label 1000002; class numbers are below 1,000,000"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(tmp_path: Path, labels: np.ndarray, line: str) -> None:
    idx(tmp_path / "train-images-idx3-ubyte", IMAGES)
    file = idx(tmp_path / "train-labels-idx1-ubyte.gz", labels)
    assert refused(tmp_path).startswith(f"--data_path {file} {line}")


def test_what_could_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    files = tmp_path / "emnist" / "gzip"
    for name in ("digits", "letters"):
        idx(files / f"emnist-{name}-train-images-idx3-ubyte.gz", IMAGES)
    line = refused(files)
    assert "one of 2 images?idx* files; give one, such as --data_path" in line
    assert len(open_source(line.rpartition(" ")[2])) == 6
    assert f"there are images?idx* files in {files}; give that folder" in refused(tmp_path)
    root = mnist(tmp_path / "mnist")
    assert "holds labels; give the file of images instead" in refused(root / "train-labels-idx1-ubyte.gz")
    idx(root / "train-labels.idx1-ubyte", NUMBERS)
    assert "has labels in train-labels-idx1-ubyte.gz and in train-labels.idx1-ubyte; move one" in refused(root)
    shard(root / "x.tar", [])
    assert "has .tar and images?idx* files; give one kind" in refused(root)


def test_a_type_that_is_not_read_is_refused(tmp_path: Path) -> None:
    path = idx(tmp_path / "images-idx3-int", IMAGES.astype(np.int32))
    assert "image 0: holds int32; convert it to one of uint8" in refused(path)


# ---- STL-10

PICTURES = np.random.default_rng(1).integers(0, 256, (6, 96, 96, 3), np.uint8)
"""(N, H, W, C)"""


def stl10(root: Path) -> Path:
    """A folder as STL-10 is published: six images for training, two for the test, three without labels."""
    root.mkdir()
    for part, count in (("train", 6), ("test", 2), ("unlabeled", 3)):
        root.joinpath(f"{part}_X.bin").write_bytes(PICTURES[:count].transpose(0, 3, 2, 1).tobytes())
    for part, count in (("train", 6), ("test", 2)):
        root.joinpath(f"{part}_y.bin").write_bytes((NUMBERS[:count] + 1).tobytes())
    root.joinpath("class_names.txt").write_text("airplane\nbig bird\ncar\n")
    root.joinpath("fold_indices.txt").write_text("0 1 2")
    return root


def test_stl10_is_read_to_the_bit_by_columns(tmp_path: Path) -> None:
    root = stl10(tmp_path / "stl10_binary")
    for path in (root, tmp_path):
        source = open_source(str(path))
        for each in (source, pickle.loads(pickle.dumps(source))):
            np.testing.assert_array_equal([read(each, index, 3)[0] for index in range(6)], PICTURES)
            assert (list(each.labels), each.fingerprint) == (LABELS, source.fingerprint)
    assert len(pickle.dumps(source)) < 2000
    left_out = "left out: 1 other entry (fold_indices.txt), the test part, the unlabeled part"
    assert describe(source) == f"6 images in 3 classes: airplane (2), big bird (2), car (2); {left_out}"
    with pytest.raises(TrainError, match=r"--in_chans 1: .*image 0 has 3 channels; give --in_chans 3"):
        read(source, 0, 1)


def test_the_test_and_the_unlabeled_part_of_stl10_are_taken_by_name_only(tmp_path: Path) -> None:
    root = stl10(tmp_path / "stl10_binary")
    with pytest.raises(TrainError, match="no part of it is for validation, only test") as error:
        open_eval(str(root), "--data_path")
    named = re.findall(r"\((.*?)\)", str(error.value))
    assert [len(open_eval(*shlex.split(path), "--eval_data_path")) for path in named] == [2, 6, 3]
    unlabelled = open_source(str(root / "unlabeled_X.bin"))
    assert describe(unlabelled) == "3 images without labels"
    with pytest.raises(
        TrainError, match=r"put the labels \(N,\), uint8 from 1, beside .*, as unlabeled_y\.bin"
    ) as error:
        require_several(unlabelled, "--data_path")
    (root / str(error.value).rpartition(" ")[2]).write_bytes(bytes([3, 3, 1]))
    assert list(open_source(str(root / "unlabeled_X.bin")).labels) == [2, 2, 0]
    assert open_source(str(root / "unlabeled_X.bin")).fingerprint != unlabelled.fingerprint
    (root / "train_X.bin").unlink()
    assert "no part of it is for training, only test" in refused(root)


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("train_X.bin", bytes(27_649), "27,649 bytes are no whole images of 27,648 each; truncated, get it again"),
        ("train_X.bin", b"", "0 bytes are no whole images"),
        ("train_y.bin", bytes([1, 2]), "is uint8(2,), not a class number for each of 6 images"),
        ("train_y.bin", bytes([1, 2, 3, 4, 5, 0]), "has the label 4; labels are 1 to 3, the lines of "),
        ("train_y.bin", bytes([1, 2, 3, 0, 0, 0]), "has the label 0; labels are 1 to 3"),
        ("class_names.txt", None, "cannot be read (No such file or directory)"),
        ("class_names.txt", b"caf\xe9", "cannot be read ('utf-8' codec can't decode"),
    ],
)
def test_damaged_stl10_is_refused(tmp_path: Path, name: str, data: bytes | None, line: str) -> None:
    file = stl10(tmp_path / "stl10_binary") / name
    file.unlink()
    if data is not None:
        file.write_bytes(data)
    assert refused(file.parent).startswith(f"--data_path {file}")
    assert line in refused(file.parent)


def test_an_archive_of_stl10_says_how_to_unpack_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(stl10(tmp_path / "made").iterdir())
    archive = shard(
        tmp_path / "a" / "x.tar.gz", [(f"stl10_binary/{each.name}", each.read_bytes()) for each in files], "w:gz"
    )
    monkeypatch.chdir(archive.parent)
    for path in (archive, archive.with_suffix("")):
        subprocess.run(shlex.split(refused(path).partition("it: ")[2]), check=True)
    assert len(open_source("stl10_binary")) == 6


def test_class_folders_of_the_same_names_are_no_parts(tmp_path: Path) -> None:
    for name in ("t10k", "unlabeled"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(encoded(PICTURES[0], "PNG"))
    assert open_source(str(tmp_path)).classes == ("t10k", "unlabeled")
