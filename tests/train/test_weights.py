"""Where fine-tuning starts: any checkpoint's encoder, a head drawn anew, the norm where there is one."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

import backends
import convert
import spec
from backends.initial import initial_arrays
from backends.protocol import State
from convert import ConvertError
from parity_tests.tolerances import EPS, assert_close
from train.__main__ import main
from train.checkpoints import store
from train.errors import TrainError
from train.tasks.weights import classifier, first_arrays

GOLDEN = Path(__file__).parents[2] / "parity_tests" / "golden"
FCMAE, CLASSIFIER = GOLDEN / "official_fcmae.pth", GOLDEN / "official_classifier.pth"


def model_of(path: Path, classes: int = 5) -> spec.Classifier:
    return spec.Classifier(replace(convert.load(path).model.encoder, drop_path=0.3, grn_scope="image"), classes, 0.001)


def fresh(model: spec.Classifier, seed: int = 0) -> dict[str, np.ndarray]:
    return first_arrays(model, seed, "")


def test_from_scratch_the_head_is_scaled_and_nothing_else() -> None:
    model = model_of(FCMAE)
    drawn, scaled = initial_arrays(replace(model, head_init_scale=1.0), 3, np.float64), fresh(model, 3)
    assert drawn.keys() == scaled.keys() == spec.parameters(model).keys()
    for name, array in drawn.items():
        if name == "head.weight":
            assert_close(scaled[name], 0.001 * array, EPS["float32"], name)
        else:
            np.testing.assert_array_equal(scaled[name], array.astype(np.float32))
    assert 1e-5 < scaled["head.weight"].std() < 3e-5


@pytest.mark.parametrize("path", [FCMAE, CLASSIFIER], ids=["sparse pre-training", "classifier"])
def test_the_encoder_is_the_checkpoints_and_the_head_is_not(path: Path) -> None:
    model = model_of(path)
    loaded, arrays, drawn = convert.load(path), first_arrays(model, 0, str(path)), fresh(model)
    prefix = "encoder." if isinstance(loaded.model, spec.FCMAE) else ""
    for name, array in arrays.items():
        known = prefix + name
        taken = known in loaded.arrays and not name.startswith("head.")
        np.testing.assert_array_equal(array, np.asarray(loaded.arrays[known]) if taken else drawn[name])
        assert array.dtype == np.float32
    assert np.array_equal(arrays["norm.weight"], drawn["norm.weight"]) == bool(prefix)


def test_a_run_of_ours_is_a_checkpoint_too(tmp_path: Path) -> None:
    model = spec.fcmae(depths=(1, 1), dims=(8, 12), image_size=32, decoder_dim=8)
    params = initial_arrays(model, 7)
    meta = {"identity": {"model": asdict(model)}}
    store.save(tmp_path / "checkpoints", 4, State(params), meta, keep=1)
    found = first_arrays(spec.Classifier(model.encoder, 3), 0, str(tmp_path))
    for name in found:
        if not name.startswith(("norm.", "head.")):
            np.testing.assert_array_equal(found[name], params[f"encoder.{name}"])


def test_an_encoder_of_another_size_says_its_own() -> None:
    line = r"its encoder differs; give --model none --depths 1 1 2 1 --dims 8 16 24 32 --patch_size 32$"
    with pytest.raises(TrainError, match=line):
        first_arrays(spec.classifier("convnextv2_atto"), 0, str(FCMAE))


@pytest.mark.parametrize("channels", [1, 12])
@pytest.mark.parametrize("path", [FCMAE, CLASSIFIER])
def test_a_stem_for_other_channels_gives_the_features_of_repeated_ones(path: Path, channels: int) -> None:
    own = convert.load(path).model.encoder
    weight = first_arrays(spec.Classifier(own, 2), 0, str(path))["downsample_layers.0.0.weight"]
    found = first_arrays(spec.Classifier(replace(own, in_chans=channels), 2), 0, str(path))
    inflated = found["downsample_layers.0.0.weight"]
    expected = weight.sum(1, keepdims=True) if channels == 1 else np.tile(weight, (1, 4, 1, 1)) / 4
    assert_close(inflated, expected, 4 * EPS["float32"], "stem")
    assert found.keys() == spec.parameters(spec.Classifier(replace(own, in_chans=channels), 2)).keys()


def test_an_encoder_of_the_other_family_is_refused_with_the_flags_of_its_own(tmp_path: Path) -> None:
    v1 = spec.classifier(depths=(1, 1), dims=(4, 6), num_classes=2, block="v1")
    convert.save(convert.Checkpoint(v1, initial_arrays(v1)), tmp_path / "x.pth", format="timm")
    line = "its encoder differs; give --model convnext_tiny --depths 1 1 --dims 4 6 --patch_size 8"
    with pytest.raises(TrainError, match=line):
        first_arrays(spec.classifier(depths=(1, 1), dims=(4, 6), num_classes=2), 0, str(tmp_path / "x.pth"))
    asked = spec.classifier("convnext_tiny", depths=(1, 1), dims=(4, 6), num_classes=2)
    assert first_arrays(asked, 0, str(tmp_path / "x.pth")).keys() == spec.parameters(asked).keys()


@pytest.mark.parametrize("task", ["probe", "reconstruct"])
def test_a_scope_of_grn_is_refused_where_there_is_no_grn(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    v1 = spec.fcmae(depths=(1, 1), dims=(4, 6), image_size=16, decoder_dim=4, block="v1")
    convert.save(convert.Checkpoint(v1, initial_arrays(v1)), tmp_path / "x.npz", format="ours")
    words = f"--task {task} --backend torch --grn_scope batch --finetune {tmp_path / 'x.npz'} --input_size 16"
    assert main([*words.split(), "--output_dir", str(tmp_path / "out")]) == 2
    line = "grn_scope: 'batch', and blocks of kind 'v1' have no GRN; leave it out"
    assert capsys.readouterr().err.splitlines()[-1] == f"train: {line}"


def test_a_classifier_is_read_whole() -> None:
    model, arrays, ema, meta = classifier(str(CLASSIFIER), False)
    assert model.num_classes == 11
    assert arrays.keys() == spec.parameters(model).keys()
    assert ema == {}
    assert meta["format"]
    with pytest.raises(TrainError, match="has no classification head; train one with --task finetune --finetune"):
        classifier(str(FCMAE), False)


@pytest.mark.parametrize("backend", backends.installed())
def test_an_optimizer_of_another_library_is_not_read(
    backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """timm's layer decay groups parameters in a way that convert does not know; only the weights are needed."""
    torch = pytest.importorskip("torch")
    state = torch.load(CLASSIFIER, weights_only=True)
    params = state.get("model", state)
    moments = {n: {"step": torch.tensor(1.0), "exp_avg": v, "exp_avg_sq": v * v} for n, v in enumerate(params.values())}
    groups = [{"params": [number]} for number in moments]
    path = tmp_path / "timm.pth"
    torch.save({"model": params, "optimizer": {"state": moments, "param_groups": groups}}, path)
    with pytest.raises(ConvertError, match="--weights-only"):
        convert.load(path)
    images = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(11))
    words = f"--task eval --finetune {path} --data_path {tmp_path / 'x.npz'} --input_size 32 --backend {backend}"
    assert main(words.split()) == 0
    assert "acc1" in capsys.readouterr().out
