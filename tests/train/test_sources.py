"""Tar shards, parquet and npz files: the same images as in a folder, in splits, and one line for what is wrong."""

import pickle
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.images import tree, trust
from tests.train.shards import FILES, LABELS, arrays, pairs, shard, table
from train.data.classes import Match, describe, listed, match
from train.data.decode import BrokenImage
from train.data.digits import Digits
from train.data.feed import read
from train.data.npz import Npz
from train.data.parquet import Parquet
from train.data.reading import ReadOptions
from train.data.sources import open_eval, open_source
from train.data.tars import Tars
from train.errors import NoSplit, TrainError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


BYTES = np.random.default_rng(0).integers(0, 256, (6, 8, 10, 3), np.uint8)


def assert_the_six(source: Any, order: Sequence[int] = range(6)) -> None:
    assert len(source) == 6
    for index, number in enumerate(order):
        data, label, key = source[index]
        assert (data, label) == (FILES[number], LABELS[number])
        assert ": " in key
    assert list(source.labels) == [LABELS[number] for number in order]


def test_tars_read_at_random(tmp_path: Path) -> None:
    shards = [shard(tmp_path / "b-1.tar", pairs([3, 4, 5])), shard(tmp_path / "a-0.tar", pairs([0, 1, 2]))]
    source = open_source(str(tmp_path))
    assert_the_six(source)
    assert source.classes == ("0", "1", "2")
    assert_the_six(pickle.loads(pickle.dumps(source)))
    assert Tars(shards).fingerprint == source.fingerprint
    shard(tmp_path / "b-1.tar", pairs([3, 4, 2]))
    assert Tars(shards).fingerprint != source.fingerprint


def test_names_in_tars_are_numbered_in_order(tmp_path: Path) -> None:
    source = Tars([shard(tmp_path / "x.tar", pairs(range(6), lambda label: ["ant", "bee", "cat"][label]))])
    assert_the_six(source)
    assert source.classes == ("ant", "bee", "cat")


def test_unchanged_shards_are_listed_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust(monkeypatch)
    path = shard(tmp_path / "x.tar", pairs(range(6)))
    Tars([path])
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", None)
        assert_the_six(Tars([path]))
    (file,) = (cache / "twinnext").iterdir()
    for spoilt in ("[]", '{"stamp": 1}', "{"):
        file.write_text(spoilt)
        assert_the_six(Tars([path]))


def test_a_tar_without_labels_can_be_pre_trained_on(tmp_path: Path) -> None:
    source = Tars([shard(tmp_path / "x.tar", [("a/1.jpg", FILES[0]), ("a/2.png", FILES[1]), ("a/readme", b"")])])
    assert (len(source), source.classes, source.labels) == (2, (".",), [0, 0])


def test_a_shard_cut_short_breaks_its_last_image(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", pairs(range(6)))
    source = Tars([path])
    path.write_bytes(path.read_bytes()[: int(source.offsets[5]) + 100])
    assert read(source, 4, 3)[1] == LABELS[4]
    with pytest.raises(BrokenImage, match=r"x\.tar: 005\.jpg: the shard ends inside it"):
        read(source, 5, 3)


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_parquet_reads_at_random(tmp_path: Path, rows: int) -> None:
    source = open_source(str(table(tmp_path / "x.parquet", rows=rows)))
    order = [5, 0, 3, 3, 1, 4, 2]
    assert [source[index][0] for index in order] == [FILES[index] for index in order]
    assert_the_six(source)
    assert_the_six(pickle.loads(pickle.dumps(source)))
    assert source.classes == ("0", "1", "2")


def test_parquet_of_the_hub_names_its_classes(tmp_path: Path) -> None:
    table(tmp_path / "data" / "train-00000-of-00001.parquet", names=["ant", "bee", "cat", "dog"])
    table(tmp_path / "data" / "validation-00000-of-00001.parquet", names=["ant", "bee", "cat", "dog"], labels=[3] * 6)
    assert open_source(str(tmp_path)).classes == ("ant", "bee", "cat", "dog")
    assert list(open_source(str(tmp_path), "val").labels) == [3] * 6


def test_parquet_keeps_row_groups_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Parquet([table(tmp_path / "x.parquet", rows=3, m=[[[n]] for n in range(6)])], ReadOptions(mask_column="m"))
    for index in (0, 5, 1, 4, 2, 3):
        assert (source[index][0], source.mask(index)) == (FILES[index], [[index]])
    assert source._group.cache_info().misses == 2


def test_parquet_of_bare_bytes_and_without_labels(tmp_path: Path) -> None:
    source = Parquet([table(tmp_path / "x.parquet", labels=None, img=FILES)])
    assert (source[3][0], source.classes, set(source.labels)) == (FILES[3], (".",), {0})


def test_parquet_of_paths_holds_no_images(tmp_path: Path) -> None:
    source = Parquet([table(tmp_path / "x.parquet", image=[{"bytes": None, "path": "a.jpg"}] * 6)])
    with pytest.raises(BrokenImage, match="row 0 of row group 1: holds no bytes"):
        read(source, 2, 3)


def test_large_row_groups_of_a_large_set_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path / "x.parquet", rows=3)
    monkeypatch.setattr("train.data.parquet.BUDGET", 100)
    Parquet([path])
    monkeypatch.setattr("train.data.parquet.GROUP", 100)
    with pytest.raises(TrainError, match=r"row_group_size=100\), or as tar shards"):
        Parquet([path])


def test_npz_of_one_set_and_of_several(tmp_path: Path) -> None:
    one = open_source(str(arrays(tmp_path / "one.npz", images=BYTES, labels=np.array(LABELS))))
    image, label, _ = one[4]
    np.testing.assert_array_equal(image, BYTES[4])
    assert (label, one.classes, len(one)) == (0, ("0", "1", "2"), 6)
    path = arrays(
        tmp_path / "more.npz",
        train_images=BYTES[:4, :, :, 0],
        train_labels=np.array(LABELS[:4])[:, None],
        val_images=BYTES[4:],
        val_labels=np.array(LABELS[4:]),
    )
    np.testing.assert_array_equal(read(open_source(str(path)), 1, 1)[0], BYTES[1, :, :, :1])
    assert list(open_source(str(path), "val").labels) == LABELS[4:]
    assert list(Npz(arrays(tmp_path / "bare.npz", images=BYTES), "train").labels) == [0] * 6


def test_a_fingerprint_sees_every_change(tmp_path: Path) -> None:
    whole = Npz(arrays(tmp_path / "a.npz", images=BYTES, labels=np.array(LABELS)), "train").fingerprint
    other = Npz(arrays(tmp_path / "a.npz", images=BYTES[::-1], labels=np.array(LABELS)), "train").fingerprint
    assert whole != other
    first = Parquet([table(tmp_path / "x.parquet")]).fingerprint
    assert first != Parquet([table(tmp_path / "x.parquet", labels=sorted(LABELS))]).fingerprint
    assert first != Parquet([table(tmp_path / "x.parquet", img=FILES[::-1])]).fingerprint


def test_splits_are_folders_or_named_files(tmp_path: Path) -> None:
    for name in ("in-train-0.tar", "in-train-1.tar", "in-val-0.tar", "test.tar"):
        shard(tmp_path / "flat" / name, pairs([len(name) % 6]))
    assert (len(open_source(str(tmp_path / "flat"))), len(open_source(str(tmp_path / "flat"), "val"))) == (2, 1)
    shard(tmp_path / "deep" / "train" / "0.tar", pairs(range(6)))
    table(tmp_path / "deep" / "val" / "0.parquet")
    assert_the_six(open_source(str(tmp_path / "deep")))
    assert_the_six(open_source(str(tmp_path / "deep"), "val"))
    arrays(tmp_path / "val.npz", images=BYTES)
    arrays(tmp_path / "train.npz", images=BYTES[:2])
    assert (len(open_source(str(tmp_path))), len(open_source(str(tmp_path), "val"))) == (2, 6)


def test_evaluation_data_may_be_undivided(tmp_path: Path) -> None:
    tree(tmp_path / "some" / "train", classes=3)
    tree(tmp_path / "some" / "val", classes=2)
    assert len(open_eval(str(tmp_path / "some"), "--data_path").classes) == 2
    assert len(open_eval(str(tmp_path / "some" / "train"), "--data_path").classes) == 3
    assert len(open_eval(str(shard(tmp_path / "x.tar", pairs(range(6)))), "--data_path")) == 6
    with pytest.raises(
        NoSplit, match=r"--data_path .*: no val/ in it, nor files named so; give --eval_data_path, or divide it"
    ):
        open_source(str(tmp_path / "some" / "train"), "val")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("bus", "train"):
            tree(tmp_path / split / name, classes=1, each=2)
    assert open_source(str(tmp_path)).classes == open_source(str(tmp_path), "val").classes == ("bus", "train")


def test_a_fifth_of_the_digits_is_held_out() -> None:
    parts = [Digits(split) for split in ("train", "val", "all")]
    assert [len(part) for part in parts] == [1442, 355, 1797]
    every = sorted(part.images[index].tobytes() for part in parts[:2] for index in range(len(part)))
    assert every == sorted(parts[2].images[index].tobytes() for index in range(1797))
    assert set(np.bincount(parts[1].labels)) <= {34, 35, 36}
    assert len({part.fingerprint for part in parts}) == 3


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda at: at / "absent", "no such folder"),
        (lambda at: shard(at / "x.tar", []), "no image in it or the shards beside it"),
        (lambda at: shard(at / "x.tar", pairs([0]), "w:gz"), "compressed; uncompress it: mv"),
        (lambda at: shard(at / "x.tar", [*pairs([0, 1])[:-2], ("7.jpg", FILES[0])]), "7.jpg: has no .cls file"),
        (lambda at: shard(at / "val.tar", pairs([0])).parent, "no part of it is for training, only val"),
        (
            lambda at: table(at / "x.parquet", labels=None, one=FILES, two=FILES),
            "no column image or img; it has one, two; give --image_column one or --image_column two",
        ),
        (lambda at: table(at / "x.parquet", labels=[0, 1, -1, 0, 0, 0]), "row 2 has the label -1"),
        (lambda at: table(at / "x.parquet", labels=[0, 1, None, 0, 0, 0]), "row 2 has the label None"),
        (lambda at: table(at / "x.parquet", labels=[[1, 2]] * 6), "row 0 has the label [1, 2], which is neither"),
        (lambda at: table(at / "x.parquet", labels=[0.5] * 6), "row 0 has the label 0.5, which is neither"),
        (lambda at: table(at / "x.parquet", labels=[0, 1, 5, 0, 0, 0], names=["a", "b"]), "row 2 has the label 5"),
        (lambda at: arrays(at / "x.npz", pictures=BYTES), "no array images or train_images; it has pictures"),
        (lambda at: arrays(at / "x.npz", images=BYTES.astype(int)), "image 0: holds int64; convert it to one of uint8"),
        (lambda at: arrays(at / "x.npz", images=BYTES[0, 0]), "images is uint8(10, 3), not (N, H, W)"),
        (lambda at: arrays(at / "x.npz", images=BYTES, labels=np.zeros(5, int)), "labels is int64(5,), not a class"),
        (lambda at: arrays(at / "x.npz", images=BYTES, labels=-np.ones(6, int)), "labels is int64(6,), not a class"),
        (lambda at: arrays(at / "x.npz", images=np.array([[None]])), "images cannot be read (Object arrays"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, make: Callable[[Path], Path], line: str) -> None:
    path = make(tmp_path)
    with pytest.raises(TrainError) as error:
        open_source(str(path))
    assert str(error.value).startswith(f"--data_path {path}")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x.tar", "x.parquet", "x.npz", "x.zip"])
def test_a_file_of_nonsense_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nonsense" * 100)
    with pytest.raises(TrainError, match=f"^--data_path .*{name}: n") as error:
        open_source(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_channels_of_arrays_must_be_the_models(tmp_path: Path) -> None:
    source = Npz(arrays(tmp_path / "x.npz", images=BYTES), "train")
    with pytest.raises(TrainError, match=r"--in_chans 1: .*x\.npz: image 2 has 3 channels"):
        read(source, 2, 1)


def test_classes_are_described_and_matched(tmp_path: Path) -> None:
    few = open_source(str(tree(tmp_path / "few", classes=3, each=2)))
    assert describe(few) == "6 images in 3 classes: c0 (2), c1 (2), c2 (2)"
    many = Npz(arrays(tmp_path / "x.npz", images=BYTES, labels=np.array([0, 0, 0, 1500, 1, 1])), "train")
    assert describe(many) == "6 images in 1,501 classes: 0, 1, 2, ..., 1500; 0 to 3 images per class"
    assert listed(("a", "b")) == "a, b"
    assert match(("c2", "c1", "x", "c0"), few.classes) == Match((3, 1, 0))
    with pytest.raises(TrainError, match="class 'c1' of the images to evaluate on is none of the model's: c0, c2"):
        match(("c0", "c2"), few.classes)
