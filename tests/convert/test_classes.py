"""The names of the classes: in and out of every container, in the order of the head's outputs, or a note."""

import json
from pathlib import Path

import pytest
import torch

import convert
import spec
from convert import surgery
from tests.convert.samples import checkpoint

NAMES = [f"class {letter}" for letter in "zyxwvutsrqpo"]  # twelve: "10" and "11" come before "2" as text
MODEL = spec.classifier(depths=(1,), dims=(4,), num_classes=len(NAMES), stem_stride=2)
WITH_ROOM = [
    ("x.safetensors", "ours"),
    ("x.npz", "ours"),
    ("x.npz", "flax"),
    ("x.pth", "ours"),
    ("x.pth", "official-dense"),
    ("x.pth", "mmpretrain"),
    ("x.safetensors", "timm"),
    ("x.orbax", "flax"),
    ("x", "hf"),
    ("x", "ours"),
]
WITHOUT = [("x.msgpack", "flax"), ("x.pth", "timm"), ("x.pth", "hf")]


def named() -> convert.Checkpoint:
    return checkpoint(MODEL, meta={"classes": NAMES})


@pytest.mark.parametrize(("name", "format"), WITH_ROOM)
def test_names_come_back(name: str, format: str, tmp_path: Path) -> None:
    assert not [note for note in convert.save(named(), tmp_path / name, format=format) if "class" in note]
    assert convert.load(tmp_path / name).classes == NAMES


@pytest.mark.parametrize(("name", "format"), WITHOUT)
def test_where_there_is_no_room_a_note_says_so(name: str, format: str, tmp_path: Path) -> None:
    (note,) = convert.save(named(), tmp_path / name, format=format)
    assert note.startswith("left out: the names of 12 classes")
    assert convert.load(tmp_path / name).classes == []


def test_too_many_names_for_an_npz_are_left_out_with_a_note(tmp_path: Path) -> None:
    long = checkpoint(MODEL, meta={"classes": [name * 2000 for name in NAMES]})
    assert "left out: the names" in convert.save(long, tmp_path / "x.npz")[0]
    assert convert.load(tmp_path / "x.npz").model == MODEL


def test_transformers_names_are_ordered_by_number(tmp_path: Path) -> None:
    from transformers import AutoConfig

    convert.save(named(), tmp_path / "x", format="hf")
    assert AutoConfig.from_pretrained(tmp_path / "x").id2label == dict(enumerate(NAMES))
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    config["id2label"] = dict(sorted(config["id2label"].items()))  # as JSON with sorted keys
    assert list(config["id2label"])[1:3] == ["1", "10"]
    (tmp_path / "x" / "config.json").write_text(json.dumps(config))
    assert convert.load(tmp_path / "x").classes == NAMES


def test_names_that_transformers_made_up_are_unknown_names(tmp_path: Path) -> None:
    convert.save(checkpoint(MODEL), tmp_path / "x", format="hf")
    assert json.loads((tmp_path / "x" / "config.json").read_text())["id2label"]["11"] == "LABEL_11"
    assert convert.load(tmp_path / "x").classes == []


def test_mmpretrain_finds_them_where_it_looks(tmp_path: Path) -> None:
    convert.save(named(), tmp_path / "x.pth", format="mmpretrain")
    assert torch.load(tmp_path / "x.pth", weights_only=True)["meta"]["dataset_meta"]["classes"] == NAMES


def test_names_of_another_number_than_the_head_has_are_left_out(tmp_path: Path) -> None:
    convert.save(checkpoint(MODEL, meta={"classes": NAMES[:5]}), tmp_path / "x.safetensors")
    found = convert.load(tmp_path / "x.safetensors")
    assert found.classes == []
    assert found.notes == ["left out: 5 class names, which are not the 12 of the head"]


def test_names_go_with_the_head() -> None:
    assert surgery.cast(named(), "bfloat16").classes == NAMES
    assert surgery.with_channels(named(), 1).classes == NAMES
    assert surgery.with_classes(named(), 5).classes == []
    assert surgery.encoder_only(named()).classes == []
    assert named().classes == NAMES
