"""Folders of images: their order, their classes, and a cache that never lies."""

import os
from pathlib import Path

import pytest

from tests.train.images import encoded, pixels, tree, trust
from train.data import folder
from train.data.folder import Folder
from train.data.sources import open_source
from train.errors import TrainError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_classes_are_sorted_folders_and_files_are_sorted_in_them(tmp_path: Path) -> None:
    found = Folder(tree(tmp_path / "images"))
    assert found.classes == ("c0", "c1")
    assert found.files == [f"c{label}/{number}.jpg" for label in range(2) for number in range(4)]
    data, label, key = found[5]
    assert data == encoded(pixels(101))
    assert label == 1
    assert key.endswith("images/c1/1.jpg")


def test_train_is_taken_where_there_is_one(tmp_path: Path) -> None:
    tree(tmp_path / "val", classes=3)
    tree(tmp_path / "train")
    assert len(open_source(str(tmp_path))) == 8
    assert len(open_source(str(tmp_path), "val")) == 12


def test_deep_trees_plain_folders_and_odd_names(tmp_path: Path) -> None:
    tree(tmp_path / "images" / "a" / "deep", classes=2, each=1)
    (tmp_path / "images" / "B.PNG").write_bytes(encoded(pixels(0), "PNG"))
    for name in (".hidden.jpg", "notes.txt"):
        (tmp_path / "images" / name).write_bytes(b"")
    found = Folder(tmp_path / "images")
    assert found.classes == (".", "a")
    assert sorted(found.files) == ["B.PNG", "a/deep/c0/0.jpg", "a/deep/c1/0.jpg"]


def test_a_link_back_up_the_tree_is_no_trap(tmp_path: Path) -> None:
    (tree(tmp_path / "images") / "c0" / "again").symlink_to(tmp_path / "images", target_is_directory=True)
    assert len(Folder(tmp_path / "images")) == 8


def test_unchanged_folders_are_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "images")
    trust(monkeypatch)
    first = Folder(root)
    listed = []
    original = folder._list
    monkeypatch.setattr(folder, "_list", lambda path, stamp: listed.append(path.name) or original(path, stamp))
    second = Folder(root)
    assert listed == ["images"]
    assert second.files == first.files
    assert second.fingerprint == first.fingerprint


def test_a_change_anywhere_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "images")
    trust(monkeypatch)
    before = Folder(root)
    (root / "c1" / "9.jpg").write_bytes(b"")
    (root / "c0" / "0.jpg").unlink()
    after = Folder(root)
    assert set(after.files) ^ set(before.files) == {"c1/9.jpg", "c0/0.jpg"}
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize("content", ["", "[]", '{"": 3}', '{"": [1, 2]}'])
def test_a_spoilt_or_unwritable_cache_is_no_obstacle(
    tmp_path: Path, cache: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "images")
    trust(monkeypatch)
    Folder(root)
    (file,) = (cache / "twinnext").iterdir()
    file.write_text(content)
    assert len(Folder(root)) == 8
    file.unlink()
    (cache / "twinnext").rmdir()
    (cache / "twinnext").write_text("a file where the folder should be")
    assert len(Folder(root)) == 8


def test_nothing_to_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="no such folder"):
        Folder(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainError, match="no image below it"):
        Folder(tmp_path / "empty")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_an_unreadable_folder_is_one_line(tmp_path: Path) -> None:
    root = tree(tmp_path / "images")
    (root / "c0").chmod(0)
    with pytest.raises(TrainError, match=r"c0: Permission denied"):
        Folder(root)
