"""Files as other programs write them: their keys and prefixes, hub folders, shards, numbers of numpy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import convert
import spec
from benchmarks import outside
from convert import ConvertError, formats, naming
from convert.__main__ import main
from convert.arrays import entries_of
from convert.preparation import IMAGENET, recorded
from tests.convert.samples import assert_equal, checkpoint, filled

CLASSIFIER = spec.classifier(depths=(1, 1), dims=(6, 8), num_classes=3, stem_stride=2)
NUMBERS = [np.float64(1.5), np.float32(2.5), np.int64(3), np.bool_(True)]


def tensors(format: str, prefix: str = "", model: spec.Model = CLASSIFIER) -> dict[str, torch.Tensor]:
    named = naming.foreign(formats.named(format), model, entries_of(filled(model)))
    return {f"{prefix}{name}": torch.from_numpy(np.array(entry.read())) for name, entry in named.items()}


def test_a_numpy_scalar_a_key_and_a_prefix_are_read_with_two_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tensors("timm", "backbone.") | {"projector.0.weight": torch.zeros(2, 2)}
    torch.save({"model_state_dict": state, "best_acc": np.float64(0.5), "epoch": 3}, tmp_path / "x.pth")
    flags = ["--key", "model_state_dict", "--prefix", "backbone."]
    assert main(["translate", str(tmp_path / "x.pth"), "--to", "ours", "-o", str(tmp_path / "y.npz"), *flags]) == 0
    assert "note: left out: projector.0.weight: not under backbone." in capsys.readouterr().out
    assert_equal(convert.load(tmp_path / "y.npz").arrays, filled(CLASSIFIER), "two flags")
    assert main(["inspect", str(tmp_path / "x.pth"), *flags]) == 0


@pytest.mark.parametrize("in_zip", [True, False])
@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: type(number).__name__)
def test_numpy_scalars_are_read_as_numbers(number: Any, in_zip: bool, tmp_path: Path) -> None:
    content = {"model": tensors("timm"), "epoch": number}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=in_zip)
    found = convert.load(tmp_path / "x.pth").meta["epoch"]
    assert found == number
    assert type(found) is type(number.item())


@pytest.mark.parametrize("value", [np.str_("text"), np.array([1.0, 2.0]), np.datetime64("2026-01-01")])
def test_other_objects_of_numpy_are_refused(value: Any, tmp_path: Path) -> None:
    torch.save({"model": tensors("timm"), "epoch": value}, tmp_path / "x.pth")
    with pytest.raises(ConvertError):
        convert.load(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("wrapped", "load"),
    [
        (lambda state: {"net": state}, {"key": "net"}),
        (lambda state: {"weights": state, "epoch": 1}, {"key": "weights"}),
        (lambda state: {"encoder": state, "decoder": {"x": torch.zeros(1)}}, {"key": "encoder"}),
    ],
)
def test_the_key_is_suggested_and_the_suggestion_works(wrapped: Any, load: dict[str, str], tmp_path: Path) -> None:
    torch.save(wrapped(tensors("timm")), tmp_path / "x.pth")
    with pytest.raises(ConvertError, match=f"choose with --key {load['key']}"):
        convert.load(tmp_path / "x.pth")
    assert_equal(convert.load(tmp_path / "x.pth", **load).arrays, filled(CLASSIFIER), "key")


@pytest.mark.parametrize("format", ["timm", "hf", "ours", "official-dense"])
@pytest.mark.parametrize("prefix", ["net.", "backbone.body."])
def test_the_prefix_is_suggested_and_the_suggestion_works(format: str, prefix: str, tmp_path: Path) -> None:
    torch.save({"state_dict": tensors(format, prefix) | {"loss.weight": torch.ones(3)}}, tmp_path / "x.pth")
    with pytest.raises(ConvertError, match=f"convert it with --prefix {prefix}"):
        convert.load(tmp_path / "x.pth")
    assert_equal(convert.load(tmp_path / "x.pth", prefix=prefix).arrays, filled(CLASSIFIER), format)


def test_lightning_and_averaged_models(tmp_path: Path) -> None:
    state = tensors("timm")
    lightning = {"state_dict": tensors("timm", "model."), "pytorch-lightning_version": "2.5", "epoch": 1}
    torch.save(lightning, tmp_path / "lightning.ckpt")
    module = torch.nn.ParameterDict({name.replace(".", "/"): tensor for name, tensor in state.items()})
    averaged = torch.optim.swa_utils.AveragedModel(module).state_dict()
    torch.save({name.replace("/", "."): tensor for name, tensor in averaged.items()}, tmp_path / "averaged.pth")
    assert_equal(convert.load(tmp_path / "lightning.ckpt", prefix="model.").arrays, filled(CLASSIFIER), "lightning")
    found = convert.load(tmp_path / "averaged.pth")
    assert_equal(found.arrays, filled(CLASSIFIER), "averaged")
    assert found.notes == ["left out: n_averaged, how many models torch's AveragedModel averaged"]


def test_a_wrong_key_or_prefix_says_what_there_is(tmp_path: Path) -> None:
    torch.save({"net": tensors("timm")}, tmp_path / "x.pth")
    with pytest.raises(ConvertError, match=r"no state dict under 'nets'; there is one under 'net'"):
        convert.load(tmp_path / "x.pth", key="nets")
    with pytest.raises(ConvertError, match=r"--prefix model\.: no array has it; the names are stem\.0\.weight"):
        convert.load(tmp_path / "x.pth", key="net", prefix="model.")
    convert.save(checkpoint(CLASSIFIER), tmp_path / "x.npz")
    with pytest.raises(ConvertError, match=r"--key is for the keys of a \.pth"):
        convert.load(tmp_path / "x.npz", key="net")


def test_features_of_timm_both_ways(tmp_path: Path) -> None:
    """As segmentation libraries keep them, under encoder.model. with a decoder beside."""
    theirs = outside.timm().create_model("convnextv2_atto", features_only=True)
    smp = {f"encoder.model.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"state_dict": smp | {"decoder.blocks.0.weight": torch.zeros(3)}}, tmp_path / "x.pth")
    found = convert.load(tmp_path / "x.pth", prefix="encoder.model.")
    assert (found.meta["format"], found.model) == ("timm-features", spec.encoder("convnextv2_atto"))
    convert.save(found, tmp_path / "y.safetensors", format="timm-features")
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    theirs.load_state_dict(safetensors.torch.load_file(tmp_path / "y.safetensors"), strict=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in theirs.state_dict().items())


ODD = spec.classifier(depths=(1, 2, 1, 1), dims=(4, 6, 8, 10), in_chans=1, stem_stride=8, num_classes=2)
ATTOS = [spec.classifier(f"{family}_atto", num_classes=2) for family in ("convnextv2", "convnext")]


@pytest.mark.parametrize("model", [*ATTOS, ODD, spec.classifier("convnext_atto", depths=(1, 1, 1, 1), num_classes=2)])
def test_a_hub_folder_of_timm_both_ways(model: spec.Classifier, tmp_path: Path) -> None:
    convert.save(checkpoint(model, meta={"classes": ["cat", "dog"]}), tmp_path / "x", format="timm")
    theirs = outside.timm().create_model(f"local-dir:{tmp_path / 'x'}", pretrained=True)
    assert theirs.num_classes == 2
    found = convert.load(tmp_path / "x")
    assert (found.meta["container"], found.model, found.classes) == ("timm", model, ["cat", "dog"])
    assert_equal(found.arrays, filled(model), "hub folder")
    assert torch.equal(theirs.state_dict()["head.fc.weight"], torch.from_numpy(found.arrays["head.weight"]))


def test_what_timm_cannot_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConvertError,
        match=r"timm builds models of four stages .* this one has 2 stages and stride 2: write a .safetensors",
    ):
        convert.save(checkpoint(CLASSIFIER), tmp_path / "x", format="timm")
    assert list(tmp_path.iterdir()) == []


def test_a_hub_folder_of_timm_as_timm_writes_it(tmp_path: Path) -> None:
    timm = outside.timm()
    theirs = timm.create_model("convnextv2_atto", num_classes=2)
    from timm.models._hub import save_for_hf

    save_for_hf(theirs, tmp_path, model_config={"label_names": ["cat", "dog"]})
    found = convert.load(tmp_path)
    assert (found.meta["format"], found.classes) == ("timm", ["cat", "dog"])
    images = {"input_size": (224,), "mean": list(IMAGENET["mean"]), "std": list(IMAGENET["std"]), "crop_pct": 0.875}
    assert (found.meta["images"], found.notes) == (images, [])
    assert np.array_equal(found.arrays["head.bias"], theirs.state_dict()["head.fc.bias"].numpy())


def test_shards_of_pickles(tmp_path: Path) -> None:
    convert.save(checkpoint(CLASSIFIER), tmp_path / "x", format="hf")
    state = safetensors.torch.load_file(tmp_path / "x" / "model.safetensors")
    (tmp_path / "x" / "model.safetensors").unlink()
    names = list(state)
    parts = {"pytorch_model-00001-of-00002.bin": names[:9], "pytorch_model-00002-of-00002.bin": names[9:]}
    for file, inside in parts.items():
        torch.save({name: state[name] for name in inside}, tmp_path / "x" / file)
    index = {"metadata": {}, "weight_map": {name: file for file, inside in parts.items() for name in inside}}
    (tmp_path / "x" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert_equal(convert.load(tmp_path / "x").arrays, filled(CLASSIFIER), "shards")


def changed(path: Path, **fields: Any) -> Path:
    """The JSON file with other fields."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return path


@pytest.mark.parametrize("format", ["hf", "dinov3-hf"])
def test_another_activation_is_refused(format: str, tmp_path: Path) -> None:
    model = spec.classifier(depths=(1, 1), dims=(6, 8), num_classes=0, block="v1")
    convert.save(checkpoint(model), tmp_path / "x", format=format)
    changed(tmp_path / "x" / "config.json", hidden_act="relu")
    with pytest.raises(ConvertError, match="hidden_act 'relu'; the model has 'gelu' only"):
        convert.load(tmp_path / "x")


def test_arguments_of_timm_are_known_or_refused(tmp_path: Path) -> None:
    convert.save(checkpoint(ATTOS[0]), tmp_path / "x", format="timm")
    config = changed(tmp_path / "x" / "config.json", model_args=None, pretrained_cfg=None)
    assert convert.load(tmp_path / "x").model == ATTOS[0]
    changed(config, model_args={"norm_eps": 1e-6, "act_layer": "relu"})
    with pytest.raises(ConvertError, match=r"model_args {'act_layer': 'relu'}, which the model does not have"):
        convert.load(tmp_path / "x")


@pytest.mark.parametrize(
    ("factor", "used"), [(0.00392156862745098, True), (1 / 127.5, False), (1, False), ("x", False)]
)
def test_mean_and_std_for_another_rescaling_are_not_used(factor: Any, used: bool, tmp_path: Path) -> None:
    convert.save(checkpoint(CLASSIFIER), tmp_path / "x", format="hf")
    changed(tmp_path / "x" / "preprocessor_config.json", rescale_factor=factor)
    found = convert.load(tmp_path / "x")
    assert ("images" in found.meta, bool(found.notes)) == (used, not used)
    assert used or f"rescale_factor {factor}" in found.notes[0]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"mean": 0, "std": 0.5}, {"mean": (0,), "std": (0.5,)}),
        ({"mean": [0.5, 0.4], "crop_pct": 1}, {"mean": (0.5, 0.4), "crop_pct": 1}),
        ({"mean": "x"}, "records mean 'x', not numbers; correct"),
        ({"mean": [0.5, None]}, r"records mean \[0.5, None\], not numbers"),
        ({"std": 0}, "records std 0, not numbers above 0"),
        ({"std": [0.1, float("nan")]}, "not numbers above 0"),
        ({"crop_pct": 1.5}, "records crop_pct 1.5, not a number above 0, at most 1"),
        ({"crop_pct": [0.9]}, r"records crop_pct \[0.9\], not a number"),
    ],
)
def test_how_images_are_prepared_is_checked(fields: dict[str, Any], found: Any, tmp_path: Path) -> None:
    if isinstance(found, dict):
        assert recorded({"images": fields}) == found
        return
    with pytest.raises(ConvertError, match=found):
        recorded({"images": fields})
