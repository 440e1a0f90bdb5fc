"""transformers and timm load what we write, strictly, and compute what we compute; we read what they save."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import backends
import convert
import spec
from backends.initial import initial_arrays
from benchmarks import outside
from parity_tests.tolerances import GOLDEN, assert_close
from tests.convert.samples import assert_equal

CLASSES = 7
SMALL = ("atto", "femto", "pico", "nano")
SIZES = [
    pytest.param(name, marks=[] if name.endswith(SMALL) and name != "convnext_nano" else [pytest.mark.slow])
    for name in spec.PRESETS
    if name != "convnextv2_small"  # only timm has it
]
families = pytest.mark.parametrize("preset", ["convnextv2_atto", "convnext_atto"])
IMAGES = np.random.default_rng(1).normal(size=(2, 64, 96, 3)).astype(np.float32)


def sample(preset: str) -> convert.Checkpoint:
    """The classifier of a preset, as it starts but for vectors that are neither 0 nor 1."""
    model = spec.classifier(preset, num_classes=CLASSES)
    return convert.Checkpoint(model, sample_arrays(model))


def sample_arrays(model: spec.Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = initial_arrays(model)
    for array in arrays.values():
        if array.ndim == 1:
            array += 0.3 * rng.normal(size=array.shape).astype(np.float32)
    return arrays


def outputs(checkpoint: convert.Checkpoint, backend: str = "torch") -> dict[str, np.ndarray]:
    framework = backends.load(backend)
    m = framework.build(checkpoint.model)
    framework.set_arrays(m, checkpoint.arrays)
    return framework.forward(m, IMAGES)


@torch.no_grad()
def run(m: torch.nn.Module) -> Any:
    return m.eval()(torch.from_numpy(IMAGES).permute(0, 3, 1, 2))


def from_pretrained(kind: Any, path: Path) -> Any:
    m, info = kind.from_pretrained(path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), info
    return m


@pytest.mark.parametrize("preset", SIZES)
def test_timm(preset: str, tmp_path: Path) -> None:
    ours = sample(preset)
    convert.save(ours, tmp_path / "x.safetensors", format="timm")
    theirs = outside.timm().create_model(preset, num_classes=CLASSES)
    theirs.load_state_dict(safetensors.torch.load_file(tmp_path / "x.safetensors"), strict=True)
    assert_close(run(theirs).numpy(), outputs(ours)["logits"], GOLDEN, preset)
    torch.save(theirs.state_dict(), tmp_path / "y.pth")
    back = convert.load(tmp_path / "y.pth")
    assert back.model == ours.model
    assert_equal(back.arrays, ours.arrays, preset)


@pytest.mark.parametrize("preset", SIZES)
def test_transformers(preset: str, tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification

    ours = sample(preset)
    convert.save(ours, tmp_path / "x", format="hf")
    theirs = from_pretrained(AutoModelForImageClassification, tmp_path / "x")
    assert type(theirs).__name__ == f"ConvNext{'V2' * ('v2' in preset)}ForImageClassification"
    assert_close(run(theirs).logits.numpy(), outputs(ours)["logits"], GOLDEN, preset)
    theirs.save_pretrained(tmp_path / "y")
    back = convert.load(tmp_path / "y")
    assert back.model == ours.model
    assert back.notes == []
    assert_equal(back.arrays, ours.arrays, preset)


@families
def test_jax_agrees_with_both(preset: str, tmp_path: Path) -> None:
    ours = sample(preset)
    convert.save(ours, tmp_path / "x.safetensors", format="timm")
    theirs = outside.timm().create_model(preset, num_classes=CLASSES)
    theirs.load_state_dict(safetensors.torch.load_file(tmp_path / "x.safetensors"), strict=True)
    assert_close(outputs(convert.load(tmp_path / "x.safetensors"), "jax")["logits"], run(theirs).numpy(), GOLDEN, "jax")


def test_the_size_that_only_timm_has() -> None:
    theirs = outside.timm().create_model("convnextv2_small", num_classes=CLASSES)
    table = spec.parameters(spec.classifier("convnextv2_small", num_classes=CLASSES))
    assert len(theirs.state_dict()) == len(table)


@families
def test_timm_reads_our_file_in_the_published_names(preset: str, tmp_path: Path) -> None:
    """timm's own converter of released files accepts it, and finds the same function."""
    ours = sample(preset)
    convert.save(ours, tmp_path / "x.pth", format="official-dense")
    theirs = outside.timm().create_model(preset, num_classes=CLASSES)
    filtered = sys.modules["timm.models.convnext"].checkpoint_filter_fn
    theirs.load_state_dict(filtered(torch.load(tmp_path / "x.pth"), theirs), strict=True)
    assert_close(run(theirs).numpy(), outputs(ours)["logits"], GOLDEN, preset)


@families
def test_transformers_bare_model(preset: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    ours = sample(preset)
    expected = outputs(ours)["features"]
    ours.model = replace(ours.model, num_classes=0)
    ours.arrays = {name: array for name, array in ours.arrays.items() if not name.startswith("head.")}
    assert_close(outputs(ours)["features"], expected, 0.0, "without a head")
    convert.save(ours, tmp_path / "x", format="hf")
    theirs = from_pretrained(AutoModel, tmp_path / "x")
    assert_close(run(theirs).pooler_output.numpy(), expected, GOLDEN, "features")
    theirs.save_pretrained(tmp_path / "y")
    assert_equal(convert.load(tmp_path / "y").arrays, ours.arrays, "bare")


def maps_of(checkpoint: convert.Checkpoint, backend: str = "torch", **options: Any) -> list[np.ndarray]:
    m = convert.build(checkpoint, backend)
    if backend == "torch":
        return [found.detach().numpy() for found in m.features(torch.from_numpy(IMAGES), layout="NCHW", **options)]
    return [np.asarray(found) for found in m.features(IMAGES, layout="NCHW", **options)]


@families
def test_features_are_those_of_timm(preset: str, tmp_path: Path) -> None:
    whole = outside.timm().create_model(preset, num_classes=CLASSES)
    torch.save(whole.state_dict(), tmp_path / "x.pth")
    theirs = outside.timm().create_model(preset, features_only=True)
    names = {name: name.replace("stem.", "stem_").replace("stages.", "stages_") for name in whole.state_dict()}
    state = {names[name]: value for name, value in whole.state_dict().items() if not name.startswith("head.")}
    theirs.load_state_dict(state, strict=True)
    ours = convert.load(tmp_path / "x.pth")
    info = convert.build(ours, "torch").feature_info()
    assert [one.channels for one in info] == theirs.feature_info.channels()
    assert [one.stride for one in info] == theirs.feature_info.reduction()
    for backend in ("torch", "jax"):
        for stage, (found, expected) in enumerate(zip(maps_of(ours, backend), run(theirs), strict=True)):
            assert_close(found, expected.numpy(), GOLDEN, f"{backend}, stage {stage}")


@families
def test_features_are_those_of_transformers(preset: str, tmp_path: Path) -> None:
    import transformers

    model = spec.encoder(preset, out_norm=True)
    ours = convert.Checkpoint(model, sample_arrays(model))
    convert.save(ours, tmp_path / "x", format="hf")
    theirs = from_pretrained(getattr(transformers, f"ConvNext{'V2' * ('v2' in preset)}Backbone"), tmp_path / "x")
    assert [info.channels for info in convert.build(ours, "torch").feature_info()] == theirs.channels
    for stage, (found, expected) in enumerate(zip(maps_of(ours), run(theirs).feature_maps, strict=True)):
        assert_close(found, expected.numpy(), GOLDEN, f"stage {stage}")
    theirs.save_pretrained(tmp_path / "y")
    back = convert.load(tmp_path / "y")
    assert (back.model, back.notes) == (model, [])
    assert_equal(back.arrays, ours.arrays, "backbone")


def test_transformers_files_in_shards(tmp_path: Path) -> None:
    from transformers import ConvNextV2ForImageClassification

    ours = sample("convnextv2_atto")
    convert.save(ours, tmp_path / "x", format="hf")
    theirs = from_pretrained(ConvNextV2ForImageClassification, tmp_path / "x")
    theirs.save_pretrained(tmp_path / "y", max_shard_size="4MB")
    assert len(list((tmp_path / "y").glob("model-*.safetensors"))) > 1
    assert_equal(convert.load(tmp_path / "y").arrays, ours.arrays, "shards")


def test_transformers_odd_sizes_labels_and_epsilon(tmp_path: Path) -> None:
    from transformers import ConvNextV2Config, ConvNextV2ForImageClassification

    labels = {0: "cat", 1: "dog", 2: "owl"}
    sizes = {"num_stages": 3, "hidden_sizes": [4, 6, 8], "depths": [1, 2, 1], "num_channels": 1, "patch_size": 2}
    config = ConvNextV2Config(**sizes, id2label=labels)
    ConvNextV2ForImageClassification(config).save_pretrained(tmp_path / "x")
    found = convert.load(tmp_path / "x")
    assert found.model == spec.classifier(depths=(1, 2, 1), dims=(4, 6, 8), in_chans=1, stem_stride=2, num_classes=3)
    assert found.notes == ["config.json has layer_norm_eps 1e-12 for the last norm; 1e-06 is used"]
    convert.save(found, tmp_path / "y", format="hf")
    assert from_pretrained(ConvNextV2ForImageClassification, tmp_path / "y").config.id2label == labels


def test_a_state_dict_of_half_precision_is_read_as_it_is(tmp_path: Path) -> None:
    theirs = outside.timm().create_model("convnextv2_atto", num_classes=CLASSES).bfloat16()
    wrapped = {"module." + name: tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"state_dict": wrapped, "state_dict_ema": theirs.state_dict(), "arch": "x"}, tmp_path / "x.pth")
    found = convert.load(tmp_path / "x.pth")
    assert {array.dtype.name for array in found.arrays.values()} == {"bfloat16"}
    assert_equal(found.ema, found.arrays, "average")


def test_channels_last_tensors_are_read_in_their_own_order(tmp_path: Path) -> None:
    m = outside.timm().create_model("convnextv2_atto", num_classes=CLASSES)
    torch.save(m.state_dict(), tmp_path / "x.pth")
    torch.save(m.to(memory_format=torch.channels_last).state_dict(), tmp_path / "y.pth")
    assert_equal(convert.load(tmp_path / "y.pth").arrays, convert.load(tmp_path / "x.pth").arrays, "channels last")


def test_flax_reads_our_trees_and_we_read_its(tmp_path: Path) -> None:
    import flax.serialization
    import flax.traverse_util

    ours = sample("convnextv2_atto")
    convert.save(ours, tmp_path / "x.msgpack", format="flax")
    tree = flax.serialization.msgpack_restore((tmp_path / "x.msgpack").read_bytes())
    flat = flax.traverse_util.flatten_dict(tree, sep=".")
    assert flat["stages.0.0.dwconv.kernel"].shape == (7, 7, 1, 40)
    assert flat["stages.0.0.pwconv1.kernel"].shape == (40, 160)
    assert_close(flat["head.kernel"].T, ours.arrays["head.weight"], 0.0, "head")
    (tmp_path / "y.msgpack").write_bytes(flax.serialization.msgpack_serialize({"params": tree}))
    assert_equal(convert.load(tmp_path / "y.msgpack").arrays, ours.arrays, "flax")
