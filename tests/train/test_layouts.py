"""Where the parts of a data set lie, what is left out, and that nothing is read in one of two ways by chance."""

import os
import re
import shlex
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pytest

from tests.train.images import encoded, pixels, tree, trust
from tests.train.shards import FILES, LABELS, arrays, pairs, shard, table
from train.data import cache
from train.data.classes import describe, require_several
from train.data.folder import Folder
from train.data.sources import open_eval, open_source
from train.data.tars import Tars
from train.errors import TrainError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def refused(path: Path | str, split: str = "train") -> str:
    """The line with which a path is refused."""
    with pytest.raises(TrainError) as error:
        open_source(str(path), split)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- splits


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_validation_is_never_merged_with_test(tmp_path: Path, kind: str) -> None:
    write = {"tar": lambda path, n: shard(path, pairs(range(n))), "parquet": lambda path, n: table(path)}[kind]
    for name, count in (("train-0", 1), ("train-1", 2), ("validation-0", 3), ("test-0", 4)):
        write(tmp_path / f"{name}.{kind}", count)
    names = lambda source: {source.name(index).split(": ")[0] for index in range(len(source))}  # noqa: E731
    assert names(open_source(str(tmp_path), "val")) == {str(tmp_path / f"validation-0.{kind}")}
    assert names(open_eval(str(tmp_path), "--data_path")) == {str(tmp_path / f"validation-0.{kind}")}
    assert names(open_source(str(tmp_path))) == {str(tmp_path / f"train-{n}.{kind}") for n in (0, 1)}
    assert "left out: the test part" in describe(open_source(str(tmp_path)))


@pytest.mark.parametrize("deep", [True, False])
def test_without_validation_the_test_part_is_taken_by_name_only(tmp_path: Path, deep: bool) -> None:
    for name in ("train", "test"):
        shard(tmp_path / name / "0.tar" if deep else tmp_path / f"{name}-0.tar", pairs(range(2 + len(name) % 2)))
    with pytest.raises(TrainError, match=r"no part of it is for validation, only .*test") as error:
        open_eval(str(tmp_path), "--data_path")
    assert "name one with --eval_data_path" in str(error.value)
    named = re.findall(r"\((.*?)\)", str(error.value))
    assert sorted(len(open_eval(*shlex.split(path), "--eval_data_path")) for path in named) == [2, 3]


@pytest.mark.parametrize("word", ["val", "valid", "validation"])
def test_the_validation_folder_has_several_names(tmp_path: Path, word: str) -> None:
    tree(tmp_path / "train", classes=2)
    tree(tmp_path / word, classes=3)
    assert len(open_source(str(tmp_path), "val").classes) == 3
    tree(tmp_path / ("val" if word != "val" else "valid"), classes=4)
    assert "rename or move one of them" in refused(tmp_path, "val")


def test_folders_named_almost_as_parts_are_refused(tmp_path: Path) -> None:
    for name in ("train2017", "img_val"):
        tree(tmp_path / name, classes=2)
    line = refused(tmp_path)
    assert "img_val/ and train2017/ look like parts of the data, not classes; rename them to val/ and train/" in line
    assert len(open_source(line.split("such as ")[1])) == 8
    tree(tmp_path / "bus", classes=1)
    assert open_source(str(tmp_path)).classes == ("bus", "img_val", "train2017")


@pytest.mark.parametrize("inner", ["imagenet", "c0"])
def test_parts_further_down_are_not_merged(tmp_path: Path, inner: str) -> None:
    for part in ("train", "test"):
        tree(tmp_path / inner / part, classes=2)
    line = refused(tmp_path)
    assert f"{inner}/ has test/ and train/ in it, which would be merged" in line
    assert len(open_source(line.rpartition("give ")[2])) == 8


def test_the_hubs_converted_layout(tmp_path: Path) -> None:
    table(tmp_path / "default" / "train" / "0000.parquet")
    table(tmp_path / "default" / "validation" / "0000.parquet", labels=[1] * 6)
    assert list(open_source(str(tmp_path)).labels) == LABELS
    assert list(open_source(str(tmp_path), "val").labels) == [1] * 6
    table(tmp_path / "other" / "train" / "0000.parquet")
    line = refused(tmp_path)
    assert len(open_source(line.split("such as ")[1])) == 6


def test_the_hubs_layout_by_configuration(tmp_path: Path) -> None:
    for name in ("train", "test"):
        table(tmp_path / "plain_text" / f"{name}-00000-of-00001.parquet", labels=[len(name)] * 6)
    assert set(open_source(str(tmp_path)).labels) == {5}
    tree(tmp_path / "cat", classes=1)
    assert "has both" in refused(tmp_path)


def test_patterns_choose_shards(tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / f"x-{number}.tar", pairs([number]))
    assert len(open_source(f"{tmp_path}/x-[01].tar")) == 2
    assert "no file matches this pattern" in refused(f"{tmp_path}/y-*.tar")
    assert "braces are not expanded, give a pattern with * or ?" in refused(f"{tmp_path}/x-{{0..2}}.tar")


def test_a_pattern_does_not_merge_parts(tmp_path: Path) -> None:
    for name in ("train", "validation", "test"):
        table(tmp_path / "data" / f"{name}-0.parquet", labels=[len(name)] * 6)
    assert set(open_source(f"{tmp_path}/data/*.parquet").labels) == {5}
    assert set(open_eval(f"{tmp_path}/data/*.parquet", "--data_path").labels) == {10}
    assert set(open_eval(f"{tmp_path}/data/test*.parquet", "--data_path").labels) == {4}
    (tmp_path / "banner.png").write_bytes(FILES[0])  # of the data set's card
    assert "banner.png" in describe(open_source(str(tmp_path)))


def test_test_labels_of_the_hub_do_not_end_a_run(tmp_path: Path) -> None:
    source = open_source(str(table(tmp_path / "test.parquet", labels=[-1] * 6)))
    assert (source.classes, set(source.labels)) == ((".",), {0})
    with pytest.raises(TrainError, match="the labels are not published"):
        require_several(source, "--data_path")


# ---- what is found and what is left out


@pytest.mark.parametrize("suffix", [".jpg", ""])
@pytest.mark.parametrize("name", ["x.tar", "data/x.tar", "x.npz", "train/x.tar"])
def test_shards_beside_class_folders_are_refused(tmp_path: Path, name: str, suffix: str) -> None:
    tree(tmp_path / "images" / ("train" if "train" in name else ""))
    for file in (tmp_path / "images").rglob("*.jpg"):
        file.rename(file.with_suffix(suffix))
    path = tmp_path / "images" / name
    (shard(path, pairs(range(6))) if path.suffix == ".tar" else arrays(path, images=np.zeros((6, 8, 8), np.uint8)))
    line = refused(tmp_path / "images")
    assert "has both" in line
    (pattern,) = re.findall("'(.*)'", line)
    assert len(open_source(pattern)) == 6


def test_shards_of_two_kinds_and_two_arrays_files_are_refused(tmp_path: Path) -> None:
    shard(tmp_path / "a" / "x.tar", pairs(range(6)))
    table(tmp_path / "a" / "x.parquet")
    assert "give one kind, such as" in refused(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for name in "xy":
        arrays(tmp_path / "b" / f"{name}.npz", images=np.zeros((2, 8, 8), np.uint8))
    assert "one of 2 npz files" in refused(tmp_path / "b")


def test_a_class_called_train_is_not_taken_for_a_part(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        tree(tmp_path / "photos" / name, classes=1)
    line = refused(tmp_path / "photos")
    assert "train/ may be a part of the data or a class beside bus/" in line
    (tmp_path / "photos").rename(tmp_path / "train")
    assert open_source(str(tmp_path / "train")).classes == ("bus", "train")
    for split in ("train", "val"):
        tree(tmp_path / "test" / split)  # a folder of that name may hold a divided set
    assert len(open_source(str(tmp_path / "test"))) == 8


def test_two_names_of_one_folder_are_two_classes_and_said(tmp_path: Path) -> None:
    root = tree(tmp_path / "images")
    (root / "z").symlink_to(root / "c0", target_is_directory=True)
    source = Folder(root)
    assert source.classes == ("c0", "c1", "z")
    assert "c0 and z are one folder, its images count 2 times" in describe(source)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    root = tree(tmp_path / "images")
    (root / "empty").mkdir()
    (root / "c0" / "notes.txt").write_text("no image")
    (root / "c0" / "up").symlink_to(root, target_is_directory=True)
    line = describe(Folder(root))
    assert line.startswith("8 images in 2 classes: c0 (4), c1 (4); left out: ")
    for phrase in ("folder without images (empty)", "file that is no image (c0/notes.txt)", "(c0/up)"):
        assert phrase in line
    assert "left out" not in describe(Folder(tree(tmp_path / "plain")))
    for split in ("train", "val"):
        tree(tmp_path / "parts" / split)
    tree(tmp_path / "parts" / "extra")
    assert "left out: extra/" in describe(open_source(str(tmp_path / "parts")))


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [(".jfif", "JPEG"), (".jpe", "JPEG"), (".avif", "AVIF"), (".jp2", "JPEG2000"), ("", "PNG"), (".0001", "WEBP")],
)
def test_images_are_found_by_what_they_are(tmp_path: Path, suffix: str, kind: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f"one{suffix}").write_bytes(encoded(pixels(0), kind))
    (tmp_path / "a" / "notes").write_text("Python is no PPM")
    assert Folder(tmp_path).files == [f"a/one{suffix}"]
    source = Tars([shard(tmp_path / "x.tar", [(f"one{suffix}", encoded(pixels(0), kind)), ("notes", b"P")])])
    assert source.keys == [f"one{suffix}"]


def test_a_key_with_two_images_is_refused(tmp_path: Path) -> None:
    members = [("0.jpg", FILES[0]), ("0.seg.png", encoded(pixels(0), "PNG"))]
    line = refused(shard(tmp_path / "x.tar", members))
    assert "the key 0 has two images, .jpg and .seg.png; give --image_key jpg or --image_key seg.png" in line
    assert "two members are called 0.jpg" in refused(shard(tmp_path / "y.tar", [members[0], members[0]]))


# ---- the cache


def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system on which times stand still, as object-store mounts and squashfs have it."""
    real = os.stat

    def stat(path: object, **how: object) -> SimpleNamespace:
        state = real(path, **how)  # type: ignore[arg-type]
        fields = {name: getattr(state, name) for name in dir(state) if name.startswith("st_")}
        return SimpleNamespace(**fields | {"st_mtime_ns": 0, "st_ctime_ns": 0, "st_mtime": 0, "st_ctime": 0})

    monkeypatch.setattr(os, "stat", stat)


def test_where_times_stand_still_nothing_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust(monkeypatch)
    still(monkeypatch)
    root = tree(tmp_path / "images")
    assert len(Folder(root)) == 8
    (root / "c0" / "new.jpg").write_bytes(FILES[0])
    assert len(Folder(root)) == 9
    path = shard(tmp_path / "x.tar", pairs(range(6)))
    before = Tars([path]).labels
    shard(path, pairs(range(6), lambda label: str(2 - label)))
    assert Tars([path]).labels == [2 - label for label in before]


def test_another_data_set_at_the_same_path_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust(monkeypatch)
    root, other = tree(tmp_path / "images"), tree(tmp_path / "other")
    (other / "c1" / "3.jpg").rename(other / "c1" / "x.jpg")
    for each in (root, other):
        for folder in (each, each / "c0", each / "c1"):
            os.utime(folder, (10**9, 10**9))
    assert len(Folder(root)) == 8
    root.rename(tmp_path / "old")
    other.rename(root)
    assert "c1/x.jpg" in Folder(root).files


def test_only_known_file_systems_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust(monkeypatch)
    assert cache.stamp(tmp_path.stat())
    monkeypatch.setattr(cache, "TRUSTED", {"ext4"})
    number = tmp_path.stat().st_dev
    for kind, trusted in (("ext4", True), ("fuse.s3fs", False), ("squashfs", False), ("overlay", False)):
        mounts = tmp_path / kind
        mounts.write_text(f"1 0 {os.major(number)}:{os.minor(number)} / / rw - {kind} x rw\n")
        monkeypatch.setattr(cache, "MOUNTS", mounts)
        cache._file_systems.cache_clear()
        assert bool(cache.stamp(tmp_path.stat())) == trusted
    cache._file_systems.cache_clear()


# ---- remedies


@pytest.mark.parametrize(
    ("name", "mode", "tool"),
    [("x.tar.gz", "w:gz", "gunzip"), ("x.tgz", "w:gz", "gunzip"), ("x.tar.xz", "w:xz", "unxz")],
)
def test_a_compressed_tar_says_how_to_uncompress_it(tmp_path: Path, name: str, mode: str, tool: str) -> None:
    path = shard(tmp_path / name, pairs(range(6)), mode)
    for given in (path, tmp_path):
        line = refused(given)
        command = line.split("uncompress it: ")[1]
        assert command == f"{tool} {path}"
    os.system(command)
    assert len(open_source(str(tmp_path))) == 6


def test_a_tar_that_is_compressed_under_its_plain_name(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", pairs(range(6)), "w:gz")
    command = refused(path).split("uncompress it: ")[1]
    os.system(command)
    assert len(open_source(str(path))) == 6


def test_save_to_disk_says_how_to_write_parquet(tmp_path: Path) -> None:
    made = pyarrow.table({"image": [{"bytes": data, "path": None} for data in FILES], "label": LABELS})
    (tmp_path / "saved" / "train").mkdir(parents=True)
    with pyarrow.ipc.new_stream(tmp_path / "saved" / "train" / "data-00000-of-00001.arrow", made.schema) as writer:
        writer.write_table(made)
    (tmp_path / "saved" / "train" / "state.json").write_text("{}")
    line = refused(tmp_path / "saved" / "train")
    assert "was written by save_to_disk; write parquet with datasets.load_from_disk(" in line
    assert ".to_parquet('train.parquet')" in line
    assert "was written by save_to_disk" in refused(tmp_path / "saved")


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda at: "s3://bucket/images", "s3://bucket/images: not a path of this machine; copy the data here"),
        (lambda at: at / "x.jpg", "neither a folder nor one of .tar"),
        (lambda at: table(at / "a" / "b" / "c" / "x.parquet").parents[2], "give that folder"),
    ],
)
def test_what_is_elsewhere_is_said(tmp_path: Path, make: Callable[[Path], Path | str], line: str) -> None:
    (tmp_path / "x.jpg").write_bytes(FILES[0])
    assert line in refused(make(tmp_path))


def test_the_advice_to_unpack_a_tar_of_folders_works(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", [("cat/0.jpg", FILES[0]), ("dog/0.jpg", FILES[1])])
    with pytest.raises(TrainError, match="if folders are the classes, unpack them: tar -xf FILE -C FOLDER"):
        require_several(open_source(str(path)), "--data_path")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "images", filter="data")
    assert open_source(str(tmp_path / "images")).classes == ("cat", "dog")


def test_what_lies_beside_shards_is_said(tmp_path: Path) -> None:
    shard(tmp_path / "data" / "a.tar", pairs(range(6)))
    shard(tmp_path / "data" / "b.tar.gz", pairs(range(6)), "w:gz")
    (tmp_path / "README.md").write_text("a card")
    line = describe(open_source(str(tmp_path)))
    assert line.endswith("left out: 2 other entries (README.md, data/b.tar.gz)")
