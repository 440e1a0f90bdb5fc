"""What a message advises works when it is done."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

import convert
import spec
from convert import ConvertError
from convert.__main__ import main
from tests.convert.samples import assert_equal, checkpoint, filled, trained
from tests.convert.test_foreign import tensors
from train.tasks import weights

CLASSIFIER = spec.classifier(depths=(1, 1), dims=(6, 8), num_classes=3, stem_stride=2)
AUTOENCODER = spec.fcmae(depths=(1, 1), dims=(6, 8), stem_stride=2, image_size=16, decoder_dim=7)


def done_as_told(message: str, file: Path, output: Path) -> convert.Checkpoint:
    """Convert the file with the flags that a message gives, and load the result."""
    flags = re.search(r"convert it with (--weights-only|--prefix \S+)", message)
    assert flags is not None, message
    assert main(["translate", str(file), "--to", "ours", "-o", str(output), *shlex.split(flags[1])]) == 0
    return convert.load(output)


def test_a_prefix_that_a_message_names(tmp_path: Path) -> None:
    torch.save(tensors("timm", "backbone."), tmp_path / "x.pth")
    with pytest.raises(ConvertError) as refused:
        convert.load(tmp_path / "x.pth")
    assert_equal(done_as_told(str(refused.value), tmp_path / "x.pth", tmp_path / "y").arrays, filled(CLASSIFIER), "x")


def test_moments_that_do_not_fit(tmp_path: Path) -> None:
    convert.save(trained(AUTOENCODER), tmp_path / "x.pth", format="official-sparse")
    content = torch.load(tmp_path / "x.pth", weights_only=True)
    content["optimizer"]["param_groups"][0]["params"].reverse()
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ConvertError) as refused:
        convert.load(tmp_path / "x.pth")
    found = done_as_told(str(refused.value), tmp_path / "x.pth", tmp_path / "y")
    assert_equal(found.arrays, filled(AUTOENCODER), "weights")


def test_no_message_of_training_advises_a_flag_of_another_command(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", unknown=np.zeros(3, np.float32))
    with pytest.raises(Exception, match="convert it with --from FORMAT") as refused:
        weights.load(str(tmp_path / "x.npz"))
    assert "name its format with --from" not in str(refused.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, of its old programs
def test_a_torchscript_program(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, tensor in tensors("official-dense").items():
                self.register_parameter(name.replace(".", "__"), torch.nn.Parameter(tensor))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    torch.jit.save(torch.jit.script(Model()), tmp_path / "x.pt")
    with pytest.raises(ConvertError, match="a TorchScript program") as refused:
        convert.load(tmp_path / "x.pt")
    remedy = re.search(r"torch\.save\(.*\)", str(refused.value))[0]  # type: ignore[index]
    exec(remedy.replace("FILE", repr(str(tmp_path / "x.pt"))).replace("weights.pth", str(tmp_path / "weights.pth")))
    state = torch.load(tmp_path / "weights.pth", weights_only=True)
    torch.save({name.replace("__", "."): tensor for name, tensor in state.items()}, tmp_path / "weights.pth")
    assert_equal(convert.load(tmp_path / "weights.pth").arrays, filled(CLASSIFIER), "state dict")


def test_what_the_sparse_code_cannot_hold_is_named(tmp_path: Path) -> None:
    v1 = checkpoint(spec.fcmae(depths=(1, 1), dims=(2, 3), patch_size=8, image_size=16, decoder_dim=4, block="v1"))
    line = r"the official-sparse format cannot hold stages\.0\.0\.gamma and 1 more, of ConvNeXt V1; choose another$"
    with pytest.raises(ConvertError, match=line):
        convert.save(v1, tmp_path / "x.pth", format="official-sparse")
    assert convert.save(v1, tmp_path / "x.pth", format="official-dense") == []
    assert_equal(convert.load(tmp_path / "x.pth").arrays, v1.arrays, "dense")


@pytest.mark.parametrize(
    ("magic", "what"),
    [(b"\x89HDF\r\n\x1a\n", "an HDF5 file"), (b"\x89PNG\r\n\x1a\n", "a PNG image"), (b"\x1f\x8b\x08", "a gzip file")],
)
def test_files_of_other_programs_are_called_by_their_name(magic: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(magic + bytes(600))
    with pytest.raises(ConvertError, match=what):
        convert.load(tmp_path / "x.h5")


def test_norms_of_every_stage_are_four_norms_and_the_last_is_the_models(tmp_path: Path) -> None:
    state = tensors("mmpretrain")
    state |= {f"backbone.norm0.{leaf}": torch.ones(6) for leaf in ("weight", "bias")}
    assert "backbone.norm1.weight" in state
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    found = convert.load(tmp_path / "x.pth")
    assert_equal(found.arrays, filled(CLASSIFIER), "mmpretrain")
    assert found.notes == [
        "left out: backbone.norm0.weight, backbone.norm0.bias: norms of single stages' outputs,"
        " which the model does not have"
    ]


@pytest.mark.parametrize("words", [["a.jpg", "b.png"], ["a.JPG", "-resize", "50%", "b.png"]])
def test_imagemagick_is_named_where_it_was_meant(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("convert: converts checkpoints, not images; ImageMagick's own command is ")
    assert said.count("\n") == 1


def test_a_newline_in_a_key_stays_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"stem.0\n.weight": torch.zeros(2)}, tmp_path / "x.pth")
    assert main(["inspect", str(tmp_path / "x.pth")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert r"stem.0\n.weight" in said


def test_a_config_of_no_object_is_refused(tmp_path: Path) -> None:
    convert.save(checkpoint(CLASSIFIER), tmp_path / "x", format="hf")
    (tmp_path / "x" / "config.json").write_text(json.dumps([1]))
    with pytest.raises(ConvertError, match="a list, not an object"):
        convert.load(tmp_path / "x")
