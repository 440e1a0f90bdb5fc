"""ConvNeXt as others release it: DINOv3, EUPE, CLIP, SparK, VisCy, BSP36/fcmae. Oracles: timm and transformers."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import convert
import spec
from benchmarks import outside
from convert import ConvertError, formats, models, naming
from convert.arrays import Entry, entries_of
from parity_tests.tolerances import GOLDEN, assert_close
from tests.convert.samples import assert_equal, checkpoint
from tests.convert.test_oracles import from_pretrained, maps_of, outputs, run, sample_arrays

DEPTHS, DIMS = (1, 2, 1, 1), (4, 6, 8, 10)
TINY = {"depths": DEPTHS, "dims": DIMS, "block": "v1"}
FEATURES = spec.classifier(**TINY, num_classes=0)
State = dict[str, torch.Tensor]


def of(model: spec.Model) -> convert.Checkpoint:
    return convert.Checkpoint(model, sample_arrays(model))


def state(format: str, model: spec.Model = FEATURES) -> State:
    named = naming.foreign(formats.named(format), model, entries_of(sample_arrays(model)))
    return {name: torch.from_numpy(np.array(entry.read())) for name, entry in named.items()}


def timm_model(name: str = "convnext_tiny", **options: Any) -> torch.nn.Module:
    """A small model of timm whose vectors are neither 0 nor 1."""
    m = outside.timm().create_model(name, depths=DEPTHS, dims=DIMS, **options)
    with torch.no_grad():
        for p in m.parameters():
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)) * (p.ndim == 1)
    return m


def released() -> dict[str, dict[str, tuple[int, ...]]]:
    """File -> name -> shape, of `released.txt`."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for line in (Path(__file__).parent / "released.txt").read_text().splitlines():
        if line.startswith("# "):
            arrays = found.setdefault(line[2:], {})
            continue
        name, *shape = line.partition(" x ")[0].split()
        for j in range(int(line.partition(" x ")[2] or 1)):
            arrays[name.format(j=j)] = tuple(map(int, shape))
    return found


def of_shapes(shapes: dict[str, tuple[int, ...]]) -> dict[str, Entry]:
    """Entries of zeros."""
    return {name: Entry(shape, np.dtype(np.float32), lambda s=shape: np.zeros(s)) for name, shape in shapes.items()}


V1_FEATURES = {name: spec.classifier(f"convnext_{name}", num_classes=0) for name in ("tiny", "large", "base")}
XXLARGE = {"depths": (3, 4, 30, 3), "dims": (384, 768, 1536, 3072), "block": "v1", "norm_eps": 1e-5}
VSCYTO = {"in_chans": 1, "stem_stride": 2, "norm_eps": 1e-5, "dwconv_bias": False}
RELEASED: dict[str, tuple[str, spec.Model]] = {
    "convnext_tiny.dinov3_lvd1689m": ("timm", V1_FEATURES["tiny"]),
    "convnext_large_mlp.clip_laion2b_augreg": ("timm", V1_FEATURES["large"]),
    "convnext_xxlarge.clip_laion2b_soup": ("timm", spec.classifier(**XXLARGE, num_classes=1024)),
    "dinov3_convnext_tiny": ("dinov3", V1_FEATURES["tiny"]),
    "dinov3-convnext-tiny-hf": ("dinov3-hf", V1_FEATURES["tiny"]),
    "cnxS224_withdecoder_1kpretrained_spark_style": ("spark", spec.encoder("convnext_small")),
    "VSCyto2D_encoder": ("viscy", spec.encoder("convnextv2_tiny", **VSCYTO)),
}
"""File -> its format and the model."""


@pytest.mark.parametrize("file", RELEASED)
def test_the_names_and_shapes_of_a_released_file(file: str) -> None:
    """They are recognised, give the model, and are those that are written."""
    name, model = RELEASED[file]
    shapes = released()[file]
    format = formats.recognise(shapes)
    assert format.name == name
    kept, lines = naming.without_surplus(format, of_shapes(shapes))
    table = spec.parameters(model)
    assert (len(kept), bool(lines)) == (len(table), len(kept) < len(shapes))
    by_path = {path: shapes[key] for key, path in naming.paths(format, kept).items()}
    assert models.infer(format, by_path, format.fields(by_path)) == model
    written = naming.foreign(format, model, of_shapes({path: param.shape for path, param in table.items()}))
    assert kept.keys() <= written.keys()
    assert all(shapes[key] == entry.shape for key, entry in written.items())


@pytest.mark.parametrize("eps", [1e-6, 1e-5])
def test_transformers_dinov3(eps: float, tmp_path: Path) -> None:
    import transformers

    ours = of(replace(FEATURES, encoder=replace(FEATURES.encoder, norm_eps=eps)))
    convert.save(ours, tmp_path / "x", format="dinov3-hf")
    theirs = from_pretrained(transformers.AutoModel, tmp_path / "x")
    assert type(theirs) is transformers.DINOv3ConvNextModel
    for backend in ("torch", "jax"):
        assert_close(run(theirs).pooler_output.numpy(), outputs(ours, backend)["features"], GOLDEN, backend)
    theirs.save_pretrained(tmp_path / "y")
    back = convert.load(tmp_path / "y")
    assert (back.model, back.notes, back.meta["format"]) == (ours.model, [], "dinov3-hf")
    assert_equal(back.arrays, ours.arrays, "transformers")
    torch.save(theirs.state_dict(), tmp_path / "z.pth")  # has "model." before stages
    assert_equal(convert.load(tmp_path / "z.pth").arrays, ours.arrays, "state dict")


def test_transformers_dinov3_backbone(tmp_path: Path) -> None:
    import transformers

    ours = of(spec.encoder(**TINY))
    convert.save(ours, tmp_path / "x", format="dinov3-hf")
    theirs = from_pretrained(transformers.DINOv3ConvNextBackbone, tmp_path / "x")
    for stage, (found, expected) in enumerate(zip(maps_of(ours), run(theirs).feature_maps, strict=True)):
        assert_close(found, expected.numpy(), GOLDEN, f"stage {stage}")
    theirs.save_pretrained(tmp_path / "y")
    back = convert.load(tmp_path / "y")
    assert back.model == ours.model
    assert_equal(back.arrays, ours.arrays, "backbone")


def test_what_dinov3_does_not_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=r"stem of stride 4 .* this model has stride 8 .*: write a .safetensors"):
        convert.save(checkpoint(spec.encoder(**TINY, stem_stride=8)), tmp_path / "x", format="dinov3-hf")
    with pytest.raises(ConvertError, match=r"dinov3-hf format cannot hold stages.0.0.grn.gamma .* of ConvNeXt V2"):
        convert.save(checkpoint(spec.encoder(**TINY | {"block": "v2"})), tmp_path / "x", format="dinov3-hf")
    with pytest.raises(ConvertError, match=r"cannot hold head; add --encoder-only"):
        convert.save(checkpoint(spec.classifier(**TINY)), tmp_path / "x", format="dinov3-hf")
    assert list(tmp_path.iterdir()) == []


def test_the_release_of_dinov3_has_its_last_norm_twice(tmp_path: Path) -> None:
    ours = of(FEATURES)
    convert.save(ours, tmp_path / "x.pth", format="dinov3")
    theirs = torch.load(tmp_path / "x.pth")
    assert torch.equal(theirs["norms.3.weight"], theirs["norm.weight"])
    found = convert.load(tmp_path / "x.pth")
    assert found.notes == ["left out: norms.3.weight, norms.3.bias: second names of arrays that the file has once more"]
    assert (found.model, found.meta["format"]) == (ours.model, "dinov3")
    assert_equal(found.arrays, ours.arrays, "dinov3")
    theirs |= {"norms.3.bias": torch.zeros(10), "projectors.0.weight": torch.zeros(2, 2)}  # as EUPE's
    torch.save(theirs, tmp_path / "y.pth")
    found = convert.load(tmp_path / "y.pth")
    assert "left out: norms.3.bias, projectors.0.weight: norms and projectors for training" in "; ".join(found.notes)
    assert_equal(found.arrays, ours.arrays, "eupe")


@pytest.mark.parametrize("classes", [0, 5])
def test_timm_with_the_names_of_dinov3_eupe_and_clip(classes: int, tmp_path: Path) -> None:
    theirs = timm_model(num_classes=classes)
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    found = convert.load(tmp_path / "x.pth")
    assert (found.model, found.notes) == (spec.classifier(**TINY, num_classes=classes), [])
    out = outputs(found)["logits" if classes else "features"]
    assert_close(out, run(theirs).numpy(), GOLDEN, "timm")


def test_timm_head_of_two_layers_is_left_out(tmp_path: Path) -> None:
    theirs = timm_model("convnext_large_mlp", num_classes=5)
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    found = convert.load(tmp_path / "x.pth")
    assert found.model == FEATURES
    names = "head.pre_logits.fc.weight, head.pre_logits.fc.bias, head.fc.weight, head.fc.bias"
    assert found.notes == [f"left out: {names}: a head of two layers, which the model does not have"]
    theirs.head.pre_logits = theirs.head.fc = torch.nn.Identity()
    assert_close(outputs(found)["features"], run(theirs).numpy(), GOLDEN, "features")


def test_timm_another_epsilon_in_a_hub_folder(tmp_path: Path) -> None:
    """As convnext_xxlarge has. A bare state dict does not say it, except by that size."""
    ours = of(spec.classifier(**TINY, norm_eps=1e-3, num_classes=3))
    convert.save(ours, tmp_path / "x", format="timm")
    theirs = outside.timm().create_model(f"local-dir:{tmp_path / 'x'}", pretrained=True)
    assert_close(outputs(ours)["logits"], run(theirs).numpy(), GOLDEN, "timm")
    assert convert.load(tmp_path / "x").model == ours.model
    assert convert.save(ours, tmp_path / "x.pth", format="timm") == [
        "norm_eps 0.001: programs of the timm format compute with 1e-06",
        "not recorded: norm_eps 0.001: pth files in the timm format are read with 1e-06",
    ]


def test_clip_towers_both_ways(tmp_path: Path) -> None:
    ours = of(FEATURES)
    convert.save(ours, tmp_path / "tower.pth", format="open-clip")
    tower = torch.load(tmp_path / "tower.pth")["model"]
    text = {
        "logit_scale": torch.ones(()),
        "text.transformer.x": torch.ones(2),
        "token_embedding.weight": torch.ones(2, 2),
    }
    whole = tower | {"visual.head.proj.weight": torch.ones(6, 10)} | text
    torch.save(whole, tmp_path / "x.pt")
    found = convert.load(tmp_path / "x.pt")
    assert (found.model, found.meta["format"]) == (FEATURES, "open-clip")
    assert found.notes == [
        "left out: visual.head.proj.weight: the projection to the space of texts, which the model does not have",
        "left out: logit_scale, text.transformer.x, token_embedding.weight: the text tower",
    ]
    assert_equal(found.arrays, ours.arrays, "open-clip")
    theirs = timm_model(num_classes=6)
    theirs.load_state_dict(sys.modules["timm.models.convnext"].checkpoint_filter_fn(whole, theirs), strict=True)
    theirs.head.fc = torch.nn.Identity()
    assert_close(outputs(found)["features"], run(theirs).numpy(), GOLDEN, "timm's reader")
    visual = {name.removeprefix("visual."): tensor for name, tensor in tower.items()}
    safetensors.torch.save_file(visual, tmp_path / "y.safetensors")
    assert_equal(convert.load(tmp_path / "y.safetensors").arrays, ours.arrays, "visual alone")


def test_spark_both_ways(tmp_path: Path) -> None:
    ours = of(spec.encoder(**TINY))
    decoder = {
        "dense_decoder.dec.0.conv.1.running_mean": torch.zeros(3),
        "dense_decoder.dec.0.conv.1.num_batches_tracked": torch.tensor(7),
        "mask_tokens.0": torch.zeros(1, 10, 1, 1),
        "imn_m": torch.zeros(1, 3, 1, 1),
        "config": {"mask_ratio": 0.6, "sbn": True},
    }
    optimizer = {"state": {0: {"step": 1, "exp_avg": torch.ones(1), "exp_avg_sq": torch.ones(1)}}, "param_groups": []}
    spark = {"args": "a string", "arch": "convnext_small", "module": state("spark", ours.model) | decoder}
    torch.save(spark | {"optimizer": optimizer, "is_pretrain": True}, tmp_path / "x.pth")
    found = convert.load(tmp_path / "x.pth")
    assert (found.model, found.meta["format"], found.optimizer) == (ours.model, "spark", None)
    assert found.notes == [
        "left out: config, settings, as SparK keeps them",
        f"left out: {', '.join(list(decoder)[:3])}: SparK's decoder, with its statistics of BatchNorm",
        "left out: imn_m: constants that SparK does not use",
        "left out: the optimizer, whose moments are of all arrays",
    ]
    assert_equal(found.arrays, ours.arrays, "spark")
    convert.save(found, tmp_path / "y.pth", format="spark")
    assert torch.load(tmp_path / "y.pth")["module"].keys() == state("spark", ours.model).keys()
    assert_equal(convert.load(tmp_path / "y.pth").arrays, ours.arrays, "written")


def test_viscy_both_ways(tmp_path: Path) -> None:
    model = spec.encoder(**TINY | {"block": "v2"}, norm_eps=1e-5, dwconv_bias=False, in_chans=1, stem_stride=2)
    names = state("viscy", model)
    names["model.encoder.stem.conv3d.bias"] += 1  # never used by a model of single planes
    torch.save({"state_dict": names | {"model.decoder.x": torch.ones(1)}}, tmp_path / "x.ckpt")
    found = convert.load(tmp_path / "x.ckpt")
    assert found.model == model
    assert [note.partition(":")[0] for note in found.notes[-2:]] == [
        "norm_eps 1e-05, as in the programs of the viscy format",
        "norm_eps of VisCy's downsampling norms is 1e-06",
    ]
    assert_equal(found.arrays, sample_arrays(model), "viscy")
    convert.save(found, tmp_path / "y.ckpt", format="viscy")
    assert torch.load(tmp_path / "y.ckpt")["state_dict"].keys() == names.keys()


def test_viscy_stacks_are_channels(tmp_path: Path) -> None:
    model = spec.encoder(**TINY | {"block": "v2"}, norm_eps=1e-5, dwconv_bias=False, in_chans=5)
    names = state("viscy-3d", model)
    stem = names["model.encoder.stem.conv3d.weight"]
    assert stem.shape == (4, 1, 5, 4, 4)
    unused = {"model.encoder.stem.conv2d.weight": torch.ones(4, 1, 4, 4)}
    torch.save({"state_dict": names | unused}, tmp_path / "x.ckpt")
    found = convert.load(tmp_path / "x.ckpt")
    assert (found.model, found.meta["format"]) == (model, "viscy-3d")
    assert "left out: encoder.stem.conv2d.weight: the stem for single planes" in found.notes[0]
    assert_equal(found.arrays, sample_arrays(model), "viscy-3d")
    images = torch.randn(1, 1, 5, 8, 8)
    expected = torch.nn.functional.conv3d(images, stem, stride=(5, 4, 4))[:, :, 0]
    plain = torch.from_numpy(found.arrays["downsample_layers.0.0.weight"])
    assert_close(torch.nn.functional.conv2d(images[:, 0], plain, stride=4).numpy(), expected.numpy(), GOLDEN, "stem")
    two = {"model.encoder.stem.conv3d.weight": stem.repeat(1, 2, 1, 1, 1)}
    torch.save({"state_dict": names | two}, tmp_path / "y.ckpt")
    with pytest.raises(ConvertError, match=r"stem.conv3d.weight: the file has \(4, 2, 5, 4, 4\), the spec says"):
        convert.load(tmp_path / "y.ckpt")


def test_bsp36_both_ways(tmp_path: Path) -> None:
    fields = {"depths": (1, 1), "dims": (4, 6), "stem_stride": 2}
    autoencoder = spec.fcmae(**fields, image_size=224, decoder_dim=7, grn_scope="grid")
    classifier = spec.classifier(**fields, num_classes=3)
    for model in (autoencoder, classifier):
        training = {"optimizer_state_dict": {"state": {}}, "scheduler_state_dict": {}, "epoch": 3, "best_loss": 0.5}
        torch.save({"model_state_dict": state("bsp36", model)} | training, tmp_path / "x.pth")
        found = convert.load(tmp_path / "x.pth")
        assert (found.model, found.meta["format"]) == (model, "bsp36")
        assert "left out: optimizer_state_dict, which is not read" in found.notes
        assert_equal(found.arrays, sample_arrays(model), "bsp36")
        convert.save(found, tmp_path / "y.pth", format="bsp36", force=True)
        assert_equal(convert.load(tmp_path / "y.pth").arrays, found.arrays, "written")
    assert "backbone.stages.0.0.dwconv.weight" in state("bsp36", classifier)


def test_other_training_files_are_not_taken_for_bsp36(tmp_path: Path) -> None:
    training = {"optimizer_state_dict": {"state": {}}, "scheduler_state_dict": {}, "epoch": 3}
    torch.save({"model_state_dict": state("timm")} | training, tmp_path / "x.pth")
    assert convert.load(tmp_path / "x.pth").meta["format"] == "timm"
