"""Files and folders of every kind: bit-exact round trips, lazy, atomic, never replacing anything unasked."""

import weakref
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

import convert
import spec
from convert import ConvertError, containers
from convert.arrays import Arrays, Entry, raw_bytes
from tests.convert.samples import CONTAINERS, KINDS, assert_equal, checkpoint, checkpoints, filled, recognised, trained


def fields(model: spec.Model) -> dict[str, Any]:
    """The fields of a model and of its encoder."""
    return {**asdict(model), **asdict(model.encoder), "encoder": None}


SMALL = spec.classifier(depths=(1, 1), dims=(8, 10), num_classes=3, stem_stride=2)
HOLDS = dict.fromkeys(CONTAINERS, ("float16", "bfloat16", "float32", "float64"))
HOLDS[".npz"] = ("float16", "float32", "float64")


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_every_container_holds_every_format(
    kind: str, suffix: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    format = data.draw(st.sampled_from(KINDS[kind]), label="format")
    original = data.draw(checkpoints(kind, (format,), HOLDS[suffix]))
    path = tmp_path_factory.mktemp("files") / f"x{suffix}"
    bare = suffix == ".msgpack" or (suffix == ".pth" and format in ("timm", "hf"))
    left = convert.save(original, path, format=format)
    found = convert.load(path)
    lost = {line.split()[2] for line in left if line.startswith("not recorded: ")}
    assert lost == {name for name, value in fields(original.model).items() if fields(found.model)[name] != value}
    others = {line.split()[0] for line in left if not line.startswith("not recorded: ")}
    theirs = {
        "grn_scope": "batch" if format == "official-sparse" else "image",
        "norm_eps": spec.EPS,
        "dwconv_bias": True,
    }
    encoder = original.model.encoder
    differ = {name for name, value in theirs.items() if getattr(encoder, name) != value}
    assert others == (set() if format in ("ours", "flax") else differ)
    assert_equal(found.arrays, original.arrays, f"{format}{suffix}")
    assert found.meta["format"] in (format, recognised(format, original.model))
    if not bare:
        assert found.model == original.model


@pytest.mark.parametrize(("format", "kind"), [("hf", "hf"), ("ours", "run"), ("flax", "orbax")])
@given(data=st.data())
@settings(max_examples=3)
def test_every_folder_round_trips(
    format: str, kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    usual = {"norm_eps": spec.EPS, "dwconv_bias": True, "grn_scope": "image"}
    original = data.draw(checkpoints("classifier", **usual))
    path = tmp_path_factory.mktemp("folders") / "x"
    left = convert.save(original, path, format=format)
    assert [line for line in left if "preprocessor_config.json" not in line] == []
    found = convert.load(path)
    assert_equal(found.arrays, original.arrays, format)
    assert found.meta["container"] == kind


@pytest.mark.parametrize(
    ("format", "program", "field"),
    [
        ("hf", "transformers builds LayerNorms", {"norm_eps": 1e-5}),
        ("hf", "transformers builds LayerNorms", {"dwconv_bias": False}),
        ("timm", "timm builds depthwise convolutions with a bias", {"dwconv_bias": False}),
        ("hf", "transformers builds GRN over the image", {"grn_scope": "grid"}),
        ("timm", "timm builds GRN over the image", {"grn_scope": "batch"}),
    ],
)
def test_a_model_that_a_program_does_not_build_is_not_written_for_it(
    format: str, program: str, field: dict[str, Any], tmp_path: Path
) -> None:
    model = spec.classifier(depths=(1, 1, 1, 1), dims=(2, 2, 2, 2), num_classes=2, **field)
    with pytest.raises(ConvertError, match=rf"^.*{program}.*: write a \.safetensors file$"):
        convert.save(checkpoint(model), tmp_path / "x", format=format)
    (note,) = convert.save(checkpoint(model), tmp_path / "x.safetensors", format=format)
    assert note.startswith("".join(f"{name} {value}: programs of the {format} format" for name, value in field.items()))
    assert convert.load(tmp_path / "x.safetensors").model == model


def test_a_view_in_another_order_is_written_as_the_array_it_is(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    views = {"fortran": np.asfortranarray(values), "turned": values.transpose(2, 0, 1), "strided": values[:, ::2]}
    from convert.containers import safetensors

    entries = {name: Entry(view.shape, view.dtype, lambda view=view: view) for name, view in views.items()}
    safetensors.write_arrays(tmp_path / "x.safetensors", entries, {})
    assert_equal(
        load_file(tmp_path / "x.safetensors"), {name: np.ascontiguousarray(v) for name, v in views.items()}, "views"
    )


def test_bytes_are_little_endian_whatever_the_array_is() -> None:
    values = np.array([1.0, 2.0], ">f4")
    assert raw_bytes(Entry((2,), values.dtype, lambda: values)).tobytes() == np.array([1.0, 2.0], "<f4").tobytes()


def test_big_endian_and_fortran_arrays_are_read(tmp_path: Path) -> None:
    arrays = filled(SMALL)
    turned = {name: np.asfortranarray(array.astype(">f4")) for name, array in arrays.items()}
    np.savez(tmp_path / "x.npz", **turned)
    assert_equal(convert.load(tmp_path / "x.npz").arrays, arrays, "npz")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".msgpack"])
def test_nothing_is_read_before_it_is_asked_for(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert.save(checkpoint(SMALL), tmp_path / f"x{suffix}")
    reads = []
    monkeypatch.setattr(np, "fromfile", lambda *a, real=np.fromfile, **k: reads.append(a) or real(*a, **k))
    found = convert.load(tmp_path / f"x{suffix}")
    assert "norm.weight" in found.arrays
    assert list(found.arrays) == list(spec.parameters(SMALL))
    assert reads == []
    assert found.arrays["norm.weight"].shape == (10,)
    assert len(reads) == 1


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".msgpack"])
def test_one_array_at_a_time_is_in_memory(suffix: str, tmp_path: Path) -> None:
    convert.save(checkpoint(SMALL), tmp_path / "x.safetensors")
    alive: Counter[str] = Counter()

    def counted(entry: Entry) -> Entry:
        def read() -> np.ndarray:
            values = entry.read()
            alive["now"] += 1
            alive["most"] = max(alive["most"], alive["now"])
            weakref.finalize(values, alive.subtract, ["now"])
            return values

        return Entry(entry.shape, entry.dtype, read)

    entries = {name: counted(entry) for name, entry in convert.load(tmp_path / "x.safetensors").arrays.entries.items()}
    convert.save(convert.Checkpoint(SMALL, Arrays(entries)), tmp_path / f"y{suffix}", format="flax")
    assert alive["most"] == 1


def test_what_stands_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"precious")
    with pytest.raises(ConvertError, match="exists already; --force"):
        convert.save(checkpoint(SMALL), path)
    assert path.read_bytes() == b"precious"
    convert.save(checkpoint(SMALL), path, force=True)
    assert_equal(convert.load(path).arrays, filled(SMALL), "forced")


def test_a_folder_that_is_no_checkpoint_is_never_replaced(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "precious").write_text("all my work")
    with pytest.raises(ConvertError, match="not a checkpoint"):
        convert.save(checkpoint(SMALL), home, format="hf", force=True)
    assert (home / "precious").read_text() == "all my work"


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": '{"editor": "vi"}'},
        {"config.json": '{"model_type": "convnextv2"}'},
        {"config.json": "[]", "model.safetensors": ""},
        {"config.json": '{"architecture": "x"}', "model.safetensors": "", "notes/precious": "all my work"},
        {"manifest.json": '{"name": "an extension"}', "params.safetensors": ""},
        {"manifest.json": '{"files": {}}', "params.safetensors": "", "precious": "all my work"},
    ],
)
def test_a_folder_with_other_files_is_never_replaced(files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_text(text)
    with pytest.raises(ConvertError, match="not replaced, even with --force; name another output"):
        convert.save(checkpoint(SMALL), tmp_path / "x", format="hf", force=True)
    assert {name: (tmp_path / "x" / name).read_text() for name in files} == files


@pytest.mark.parametrize("format", ["ours", "hf", "flax"])
def test_a_checkpoint_folder_is_replaced_whole(format: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    convert.save(trained(SMALL), path, format=format)
    convert.save(checkpoint(SMALL, seed=5), path, force=True)
    found = convert.load(path)
    assert_equal(found.arrays, filled(SMALL, seed=5), "replaced")
    assert found.optimizer is None
    assert [child.name for child in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz", "x.msgpack", "x.pth", "x.hf", "x.orbax"])
def test_an_error_half_way_leaves_nothing(name: str, tmp_path: Path) -> None:
    broken = filled(SMALL)
    broken["head.bias"][1] = np.nan
    with pytest.raises(ConvertError, match=r"head.bias: 1 of its 3 values are NaN"):
        convert.save(convert.Checkpoint(SMALL, broken), tmp_path / name, format="hf" if name == "x.hf" else "flax")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConvertError, match="not written"):
        convert.save(checkpoint(SMALL), tmp_path / "file" / "x.safetensors")
    with pytest.raises(ConvertError, match="not written"):
        convert.save(checkpoint(SMALL), tmp_path / "absent" / "x.safetensors")


@pytest.mark.parametrize(
    ("name", "format", "kind"),
    [("a.pt", "flax", "pth"), ("a", "hf", "hf"), ("a", "timm", "timm"), ("a", "mmpretrain", "orbax")],
)
def test_the_suffix_chooses_the_container(name: str, format: str, kind: str) -> None:
    assert containers.kind_for(Path(name), format) == kind


def test_an_unknown_suffix_is_refused() -> None:
    with pytest.raises(ConvertError, match=r"'\.h5'"):
        containers.kind_for(Path("a.h5"), "flax")


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConvertError, match="msgpack is not installed; pip install msgpack"):
        containers.module("msgpack")


@pytest.mark.parametrize(
    ("format", "fields", "notes"),
    [
        (
            "official-dense",
            {"norm_eps": 1e-2},
            ["norm_eps 0.01: programs of the official-dense format compute with 1e-06"],
        ),
        (
            "mmpretrain",
            {"dwconv_bias": False},
            ["dwconv_bias False: programs of the mmpretrain format compute with True"],
        ),
        (
            "viscy",
            {"in_chans": 1},
            [
                "norm_eps 1e-06: programs of the viscy format compute with 1e-05",
                "dwconv_bias True: programs of the viscy format compute with False",
            ],
        ),
        ("viscy", {"in_chans": 1, "norm_eps": 1e-5, "dwconv_bias": False}, []),
        ("nnx", {"norm_eps": 1e-2, "grn_scope": "batch"}, []),
    ],
)
def test_what_a_program_computes_in_another_way_is_noted(
    format: str, fields: dict[str, Any], notes: list[str], tmp_path: Path
) -> None:
    model = spec.encoder(depths=(1, 1), dims=(8, 10), **fields)
    for name in ("x.safetensors", "x.pth"):
        assert convert.save(checkpoint(model), tmp_path / name, format=format) == notes


def test_an_autoencoder_of_bsp36_outside_its_file(tmp_path: Path) -> None:
    """In msgpack its names are the published ones, whose programs have another GRN."""
    usual = {"depths": (1, 1), "dims": (8, 10), "image_size": 224, "decoder_dim": 7}
    grid = spec.fcmae(**usual, grn_scope="grid", mask_ratio=0.7, mask_rounding="ceil")
    assert [line.partition(":")[0] for line in convert.save(checkpoint(grid), tmp_path / "x.pth", format="bsp36")] == []
    left = convert.save(checkpoint(grid), tmp_path / "x.msgpack", format="bsp36")
    assert {line.split(" format ")[0] for line in left} == {
        f"not recorded: {field}: msgpack files in the bsp36"
        for field in ("grn_scope grid", "mask_ratio 0.7", "mask_rounding ceil")
    }
    assert convert.load(tmp_path / "x.msgpack").model == spec.fcmae(**usual)
    (note,) = convert.save(checkpoint(spec.fcmae(**usual)), tmp_path / "y.pth", format="bsp36")
    assert note == "grn_scope image: programs of the bsp36 format compute with grid"


def test_names_that_are_read_only_with_from(tmp_path: Path) -> None:
    model = spec.classifier(depths=(1, 1), dims=(8, 10), num_classes=3, drop_path=0.1)
    (note,) = convert.save(checkpoint(model), tmp_path / "x.msgpack", format="bsp36")
    assert (
        note == "not recorded: drop_path 0.1: msgpack files in the bsp36 format are read (with --from bsp36) with 0.0"
    )
    assert_equal(convert.load(tmp_path / "x.msgpack", format="bsp36").arrays, filled(model), "bsp36")
