"""Each runtime computes what the backend computes: any sizes, masks, layouts, halves; a wrong program is seen."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import convert
import spec
from convert import Checkpoint, ConvertError
from export import verify
from export import write as writing
from export.__main__ import main
from export.signature import Signature
from export.write import TARGETS, module, write
from parity_tests.tolerances import EPS, assert_close
from tests.convert.test_oracles import sample_arrays

CLASSIFIER = spec.classifier(depths=(1, 1), dims=(8, 16), num_classes=5)
AUTOENCODER = spec.fcmae(depths=(1, 1), dims=(8, 16), decoder_dim=12, decoder_depth=1, image_size=32)


def sample(model: spec.Model) -> Checkpoint:
    return Checkpoint(model, sample_arrays(model))


@pytest.fixture(scope="module", params=list(TARGETS))
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def inputs(signature: Signature, images: int, rows: int, columns: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    first, *mask = signature.shapes(images, rows, columns)
    removed = [(rng.permuted(np.arange(np.prod(shape)).reshape(images, -1) % 2, 1)).reshape(shape) for shape in mask]
    return [rng.normal(size=first).astype(np.float32), *(one.astype(np.float32) for one in removed)]


def test_a_classifier_by_the_command(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And, apart from the command's own check, the file equals the public forward pass at a third size."""
    ours = replace(
        sample(CLASSIFIER), meta={"classes": list("abcde"), "args": {"imagenet_default_mean_and_std": False}}
    )
    convert.save(ours, tmp_path / "x.npz")
    assert main([str(tmp_path / "x.npz"), "--to", target]) == 0
    file = tmp_path / f"x{TARGETS[target].suffix}"
    printed = capsys.readouterr().out
    assert "logits: largest gap" in printed
    assert f"{file}: written, {target}, float32, {file.stat().st_size / 1e6:.1f} MB" in printed
    about = json.loads((tmp_path / f"{file.name}.json").read_text())
    assert about["inputs"] == {"images": "(N, 8 * G_h, 8 * G_w, 3)"}
    assert (about["outputs"], about["classes"]) == (["logits"], list("abcde"))
    assert (about["images"], about["unit"]) == ({"mean": [0.5] * 3, "std": [0.5] * 3}, "in units of 0..1")
    signature = Signature.of(CLASSIFIER)
    pixels = inputs(signature, 5, 3, 2)
    (found,) = module(target).load(file, signature)(*pixels)
    expected = convert.build(ours, "torch", dtype="float64")(*map(_tensor, pixels))["logits"]
    assert_close(found, expected.detach().numpy(), 16 * EPS["float32"], target)


def test_a_description_is_not_replaced_and_says_no_unit_that_is_not_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    convert.save(sample(CLASSIFIER), tmp_path / "x.npz")
    about = tmp_path / "x.pt2.json"
    about.write_text("mine")
    words = [str(tmp_path / "x.npz"), "--to", "torch"]
    with monkeypatch.context() as patched:
        patched.setattr("export.__main__.write", None)  # it is not called
        assert main(words) == 2
    assert capsys.readouterr().err == f"export: {about}: exists already; --force replaces it, -o names another output\n"
    assert about.read_text() == "mine"
    assert main([*words, "--force"]) == 0
    assert json.loads(about.read_text())["unit"] is None
    assert "by a mean and std that the checkpoint does not record\n" in capsys.readouterr().out


def _tensor(values: np.ndarray) -> object:
    import torch

    return torch.from_numpy(values)


@pytest.mark.parametrize("options", [{}, {"features": True, "stages": [1], "masked": True, "layout": "NCHW"}])
def test_a_masked_encoder_in_float16(target: str, options: dict[str, object], tmp_path: Path) -> None:
    """The whole autoencoder, and maps of one stage, channels first: `write` compares them in the runtime."""
    signature = Signature.of(AUTOENCODER, **options)  # type: ignore[arg-type]
    written = write(sample(AUTOENCODER), tmp_path / f"x{TARGETS[target].suffix}", target, signature, "float16")
    assert [gap.output for gap in written.gaps] == list(signature.outputs)
    assert signature.inputs == ("images", "mask")
    assert min(gap.found for gap in written.gaps) > EPS["float32"]  # it does compute in halves


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_large_activations_stay_finite_in_halves(target: str, dtype: str, tmp_path: Path) -> None:
    """Values of 1,000 in GRN: each has a square that float16 cannot hold."""
    if (target, dtype) == ("onnx", "bfloat16"):
        with pytest.raises(ConvertError, match=r"bfloat16: onnxruntime has no convolution in it.*give --dtype float16"):
            write(sample(CLASSIFIER), tmp_path / "x.onnx", target, Signature.of(CLASSIFIER), dtype)
        return
    ours = sample(CLASSIFIER)
    arrays = {name: array * (2000 if ".pwconv1." in name else 1) for name, array in ours.arrays.items()}
    arrays |= {name: array / 2000 for name, array in arrays.items() if ".pwconv2.weight" in name}
    large = replace(ours, arrays=arrays)
    write(large, tmp_path / f"x{TARGETS[target].suffix}", target, Signature.of(CLASSIFIER), dtype)
    seen = convert.build(large, "torch").eval()
    largest: dict[str, float] = {}
    pixels = inputs(Signature.of(CLASSIFIER), 1, 2, 3)
    seen(*map(_tensor, pixels), record=lambda path, x, space: largest.update({path: float(x.detach().abs().max())}))
    assert max(value for path, value in largest.items() if path.endswith("act")) ** 2 > float(np.finfo(np.float16).max)


def test_a_wrong_program_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that lost the small epsilon of a norm, or returns NaN, is no rounding error."""
    made = module("torch")
    right = made.load

    for spoilt in (lambda value: value * (1 + 2e-5), lambda value: value * np.nan):

        def load(path: Path, signature: Signature, spoilt: object = spoilt) -> verify.Program:
            run = right(path, signature)
            return lambda *arrays: [spoilt(value) for value in run(*arrays)]  # type: ignore[operator]

        monkeypatch.setattr(made, "load", load)
        with pytest.raises(ConvertError, match=r"not written: torch .* another function: logits: largest gap"):
            write(sample(CLASSIFIER), tmp_path / "x.pt2", "torch", Signature.of(CLASSIFIER))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--to", "torch", "--stages", "2"], "stages"),
        (["--to", "torch", "--ema"], "--ema: the checkpoint has no EMA"),
        (["--to", "torch", "-o", "y.onnx"], "y.onnx: the name of this kind of file ends in .pt2"),
        (["--to", "tflite"], "invalid choice: 'tflite'"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert.save(sample(CLASSIFIER), tmp_path / "x.npz")
    with pytest.raises(SystemExit, match="2"):
        raise SystemExit(main([str(tmp_path / "x.npz"), *words]))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("export: ")
    assert reason in line
    assert [file.name for file in tmp_path.iterdir()] == ["x.npz"]


def test_what_a_file_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is computed: huge has 2.6 GB in float32."""
    monkeypatch.setattr(writing, "LARGEST", 1000)
    with pytest.raises(ConvertError, match=r"bytes of parameters, and a file holds 1,000; give --dtype float16"):
        write(sample(CLASSIFIER), tmp_path / "x.onnx", "onnx", Signature.of(CLASSIFIER))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing.util, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(ConvertError, match=r"onnxruntime not installed; pip install 'twinnext\[torch,export\]'"):
        module("onnx")


def test_outputs_by_kind_of_model() -> None:
    headless = spec.classifier(depths=(1,), dims=(4,), num_classes=0)
    backbone = spec.encoder(depths=(1, 1), dims=(4, 8))
    assert Signature.of(headless).outputs == ("features",)
    assert Signature.of(backbone).outputs == ("stage0", "stage1")
    assert Signature.of(backbone, stages=[1, 0], masked=True).outputs == ("stage1", "stage0")
    assert Signature.of(AUTOENCODER).outputs == ("encoded", "prediction")
    assert Signature.of(AUTOENCODER).shapes(2, 3, 4) == ((2, 24, 32, 3), (2, 3, 4))
    assert Signature.of(AUTOENCODER, layout="NCHW").described() == ("(N, 3, 8 * G_h, 8 * G_w)", "(N, G_h, G_w)")
