"""Class names: matched by name from any container, an assumed order is said, and any name can be printed."""

import io
import subprocess
import sys
from pathlib import Path
from unicodedata import normalize

import pytest

from tests.project.tree import ROOT
from tests.train.images import encoded, pixels, tree
from train.data.classes import Match, describe, match, match_checkpoint, names_of
from train.data.decode import BrokenImage
from train.data.feed import read
from train.data.folder import Folder
from train.data.names import printable
from train.errors import TrainError

CAFE = normalize("NFC", "cafe\u0301")
TWELVE = tuple(sorted(map(str, range(12))))
"""Folders 0 to 11 in the order in which a trainer sorts them: 0, 1, 10, 11, 2, ..."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("key", ["classes", "labels"])
def test_names_in_a_checkpoint_are_matched_by_name(key: str) -> None:
    assert match_checkpoint({key: ["dog", "ant", "cat"]}, 3, ("ant", "cat", "dog")) == Match((1, 2, 0))
    assert match_checkpoint({key: ["dog", CAFE]}, 2, (normalize("NFD", CAFE),)) == Match((1,))
    with pytest.raises(TrainError, match="class 'cow' of the images to evaluate on is none of the model's: dog, ant"):
        match_checkpoint({key: ["dog", "ant"]}, 2, ("ant", "cow"))


def test_folders_of_numbers_are_in_the_trainers_order() -> None:
    found = match_checkpoint({}, 12, TWELVE)
    assert found.index == tuple(range(12))
    assert found.note is not None
    assert "the checkpoint has no class names; the data's order is assumed: 0 is class 0, 9 is class 11" in found.note
    assert match_checkpoint({"classes": list(TWELVE)}, 12, tuple(map(str, range(12)))).index[10] == 2


def test_an_order_is_assumed_only_where_it_can_be() -> None:
    words = {"classes": ["tench", "goldfish"]}
    found = match_checkpoint(words, 2, ("n01440764", "n01443537"))
    assert found.index == (0, 1)
    assert "its class names (tench, goldfish) are not the data's; the data's order is assumed" in (found.note or "")
    assert match_checkpoint({}, 1000, ("0", "1", "2")).index == (0, 1, 2)  # numbers in a file, not folders
    for data in (("ant", "bee", "cat"), TWELVE):
        with pytest.raises(TrainError, match="so they cannot be matched; evaluate on images of all 1,000"):
            match_checkpoint({}, 1000, data)
    with pytest.raises(TrainError, match="class 'n01440764'"):
        match_checkpoint({**words, "identity": {}}, 2, ("n01440764", "n01443537"))


def test_placeholders_and_lists_of_another_length_are_no_names() -> None:
    assert names_of({"labels": ["LABEL_0", "LABEL_1"]}, 2) is None
    assert names_of({"labels": ["a", "b", "c"]}, 2) is None
    assert names_of({}, 2) is None


def test_a_name_of_two_classes_is_refused_only_where_it_is_used() -> None:
    model = ("crane", "maillot", "crane")
    assert match(model, ("maillot",)).index == (1,)
    with pytest.raises(TrainError, match="class 'crane': the model has several classes of this name"):
        match(model, ("crane",))


def test_folders_that_look_the_same_are_refused(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        tree(tmp_path / "both" / normalize(form, CAFE), classes=1, each=1)
    with pytest.raises(TrainError, match=r"'cafe\\u0301' and 'caf\\xe9' have the same name in two Unicode forms"):
        Folder(tmp_path / "both")
    tree(tmp_path / "one" / normalize("NFD", CAFE), classes=1, each=1)
    assert Folder(tmp_path / "one").classes == (CAFE,)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain", "plain"),
        (CAFE, CAFE),
        ("caf\udce9", r"caf\xe9"),
        ("a\nb\x1b[31m", r"a\nb\x1b[31m"),
        ("\ud800", r"\xed\xa0\x80"),
        ("\u202eevil", r"\u202eevil"),
    ],
)
def test_any_name_is_one_printable_line(name: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    assert printable(name) == shown
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert printable(name).isascii()


def test_names_that_the_terminal_cannot_show_end_no_run(tmp_path: Path) -> None:
    root = tree(tmp_path / "images")
    (root / "c0").rename(root / "\u732b")
    for name in (b"caf\xe9.jpg", b"good.jpg"):
        (root / "c1" / "x").with_name("y").write_bytes(b"")
        with open(bytes(root / "c1") + b"/" + name, "wb") as file:
            file.write(b"" if name != b"good.jpg" else encoded(pixels(0)))
    script = (
        "from pathlib import Path; from train.data.folder import Folder; from train.data.feed import read\n"
        "from train.data.classes import describe; from train.data.decode import BrokenImage\n"
        f"source = Folder(Path({str(root)!r})); print(describe(source))\n"
        "for index in range(len(source)):\n"
        "    try: read(source, index, 3)\n"
        "    except BrokenImage as error: print(error)\n"
    )
    environment = {"PATH": "", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", script]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert r"\u732b (4)" in said.stdout
    assert r"c1/caf\xe9.jpg: an empty file" in said.stdout


def test_a_broken_image_of_any_name_has_a_line(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", classes=1, each=1)
    with open(bytes(root / "c0") + b"/\xff.jpg", "wb"):
        pass
    source = Folder(root)
    with pytest.raises(BrokenImage, match=r"\\xff\.jpg: an empty file"):
        read(source, 1, 3)
    assert describe(source) == "2 images in 1 class: c0 (2)"
