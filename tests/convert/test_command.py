"""The command line: names of outputs, tables, verdicts, and mistakes of one line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import convert
import spec
from convert.__main__ import main
from convert.verify import verify
from parity_tests import golden
from tests.convert.samples import assert_equal, checkpoint, filled, trained

CLASSIFIER = spec.classifier(depths=(1,), dims=(8,), num_classes=3, stem_stride=2)
AUTOENCODER = spec.fcmae(depths=(1, 1), dims=(6, 8), stem_stride=2, image_size=16, decoder_dim=7)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    convert.save(checkpoint(CLASSIFIER), tmp_path / "ckpt.pth", format="official-dense")
    return tmp_path / "ckpt.pth"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["torch2jax"], "ckpt.flax.safetensors"),
        (["jax2torch"], "ckpt.official-dense.pth"),
        (["jax2torch", "--to", "timm"], "ckpt.timm.safetensors"),
        (["translate", "--to", "hf"], "ckpt.hf"),
        (["translate", "--to", "ours"], "ckpt.ours.safetensors"),
        (["translate", "--to", "mmpretrain"], "ckpt.mmpretrain.pth"),
    ],
)
def test_outputs_have_sensible_names(
    command: list[str], name: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command[0], str(source), *command[1:]]) == 0
    assert f"{source.with_name(name)}: written" in capsys.readouterr().out
    assert_equal(convert.load(source.with_name(name)).arrays, filled(CLASSIFIER), name)


def test_a_name_does_not_grow_with_every_conversion(source: Path) -> None:
    assert main(["torch2jax", str(source)]) == 0
    assert main(["jax2torch", str(source.with_name("ckpt.flax.safetensors"))]) == 0
    assert source.with_name("ckpt.official-dense.pth").is_file()


def test_a_run_stays_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert.save(trained(AUTOENCODER), tmp_path / "ckpt.pth", format="official-sparse")
    assert main(["translate", str(tmp_path / "ckpt.pth"), "--to", "ours"]) == 0
    assert convert.load(tmp_path / "ckpt.ours").optimizer.t == 7
    assert main(["translate", "--to", "ours", str(tmp_path / "ckpt.pth"), "-o", str(tmp_path / "x.safetensors")]) == 0
    assert "note: left out: AdamW's moments" in capsys.readouterr().out


def test_flags_reach_their_functions(tmp_path: Path) -> None:
    convert.save(trained(AUTOENCODER), tmp_path / "x.pth", format="official-sparse")
    options = ["--ema", "--encoder-only", "--in-chans", "1", "--num-classes", "5", "--dtype", "bfloat16"]
    assert main(["translate", str(tmp_path / "x.pth"), "--to", "timm", *options]) == 0
    found = convert.load(tmp_path / "x.timm.safetensors")
    assert (found.model.encoder.in_chans, found.model.num_classes) == (1, 5)
    assert found.arrays["head.weight"].dtype.name == "bfloat16"
    kept = trained(AUTOENCODER).ema["encoder.stages.0.0.grn.gamma"]
    assert np.array_equal(found.arrays["stages.0.0.grn.gamma"], kept.astype(found.arrays["head.weight"].dtype))


def test_from_overrides_what_names_look_like(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(source), "--from", "timm"]) == 2
    assert "not in the timm format: downsample_layers.0.0.weight" in capsys.readouterr().err


def test_inspect_shows_facts_parts_and_uses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(golden.FOLDER / "official_fcmae.pth")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["format", "official-sparse,", "in", "pth"] in lines
    assert ["optimizer", "AdamW", "after", "1", "updates"] in lines
    assert ["stages.2", "20", "12,336", "0.05", "float32"] in lines
    assert ["all", "81", "88,280", "0.35", "float32"] in lines
    assert ["classification", "norm,", "head"] in lines
    assert ["pre-training", "nothing"] in lines


def test_inspect_shows_the_fields_that_are_not_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = spec.fcmae(depths=(1, 1), dims=(6, 8), image_size=16, decoder_dim=7, grn_scope="batch", mask_ratio=0.5)
    convert.save(checkpoint(model), tmp_path / "x.npz")
    assert main(["inspect", str(tmp_path / "x.npz")]) == 0
    assert "grn_scope batch, mask_ratio 0.5\n" in capsys.readouterr().out


def test_inspect_knows_presets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert.save(checkpoint(spec.classifier("convnextv2_atto", num_classes=2)), tmp_path / "x.safetensors")
    assert main(["inspect", str(tmp_path / "x.safetensors")]) == 0
    assert "convnextv2_atto, classifier" in capsys.readouterr().out


def test_verify_finds_equal_what_was_converted(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["torch2jax", str(source)]) == 0
    assert main(["verify", str(source), str(source.with_name("ckpt.flax.safetensors"))]) == 0
    assert "the same function" in capsys.readouterr().out


def test_verify_names_the_first_layer_that_differs(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = convert.load(source)
    weight = changed.arrays["stages.0.0.dwconv.weight"]
    arrays = {**changed.arrays, "stages.0.0.dwconv.weight": weight.swapaxes(2, 3)}  # fits, and is wrong
    convert.save(convert.Checkpoint(changed.model, arrays), source.with_name("y.pth"))
    assert main(["verify", str(source), str(source.with_name("y.pth"))]) == 1
    assert "not the same function, first difference at stages.0.0" in capsys.readouterr().out


def test_verify_compares_what_both_have(tmp_path: Path) -> None:
    whole = checkpoint(AUTOENCODER)
    part = convert.surgery.encoder_only(whole)
    verdict = verify(whole, part)
    assert verdict.same
    assert {"stages.1.0", "stage1"} <= verdict.gaps.keys()


def test_verify_refuses_models_of_other_shapes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert.save(checkpoint(AUTOENCODER), tmp_path / "x.safetensors")
    assert main(["verify", str(source), str(tmp_path / "x.safetensors")]) == 2
    assert "different shapes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["frobnicate"],
        ["translate", "IN"],
        ["translate", "IN", "--to", "keras"],
        ["torch2jax", "IN", "--dtype", "int8"],
        ["torch2jax", "IN", "--enc"],
        ["torch2jax", "IN", "-o", "x.h5"],
        ["torch2jax", "IN", "--ema"],
        ["torch2jax", "IN", "-o", "IN"],
        ["translate", "IN", "--to", "official-sparse"],
        ["verify", "IN"],
        ["inspect", "absent"],
    ],
)
def test_mistakes_end_in_one_line(argv: list[str], source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([str(source) if word == "IN" else word for word in argv])
    except SystemExit as leaving:
        code = leaving.code
    said = capsys.readouterr()
    assert (code, said.out, said.err.count("\n")) == (2, "", 1), said.err
    assert said.err.startswith("convert")
    assert [path.name for path in source.parent.iterdir()] == ["ckpt.pth"]


def test_python_dash_m_and_no_framework_it_does_not_need(source: Path) -> None:
    """A .safetensors is inspected without importing torch or jax."""
    convert.save(checkpoint(CLASSIFIER), source.with_suffix(".safetensors"))
    program = "import sys, convert.__main__ as c; c.main(sys.argv[1:]); print({'torch', 'jax'} & sys.modules.keys())"
    for start in (["-m", "convert"], ["-c", program]):
        command = [sys.executable, *start, "inspect", str(source.with_suffix(".safetensors"))]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("set()\n")
