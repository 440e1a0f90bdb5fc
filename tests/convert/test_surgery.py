"""Changes on request: their effect on the function, and their notes."""

from pathlib import Path

import numpy as np
import pytest

import backends
import convert
import spec
from convert import ConvertError, surgery
from parity_tests.tolerances import EPS, assert_close
from tests.convert.samples import assert_equal, checkpoint, filled, trained

CLASSIFIER = spec.classifier(depths=(1, 1), dims=(6, 8), in_chans=3, num_classes=3, stem_stride=2)
AUTOENCODER = spec.fcmae(depths=(1, 1), dims=(6, 8), stem_stride=2, image_size=16, decoder_dim=7)


def logits(of: convert.Checkpoint, images: np.ndarray) -> np.ndarray:
    torch = backends.load("torch")
    m = torch.build(of.model, dtype="float64")
    torch.set_arrays(m, of.arrays)
    return torch.forward(m, images)["logits"]


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 6, 12])
def test_repeated_channels_give_the_same_function(channels: int) -> None:
    before = checkpoint(CLASSIFIER, "float64")
    after = surgery.with_channels(before, channels)
    assert after.model.encoder.in_chans == channels
    fewer = min(channels, 3)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, fewer))
    repeated = [images[..., np.arange(count) % fewer] for count in (3, channels)]
    bound = 8 * EPS["float64"] * len(CLASSIFIER.steps)
    assert_close(logits(after, repeated[1]), logits(before, repeated[0]), bound, f"{channels} channels")
    assert f"3 channels to {channels}" in after.notes[0]


def test_an_encoder_keeps_its_bits_and_loses_the_rest() -> None:
    before = trained(AUTOENCODER)
    after = surgery.encoder_only(before)
    assert after.model == spec.Backbone(AUTOENCODER.encoder)
    assert {f"encoder.{name}" for name in after.arrays} < set(before.arrays)
    for name in after.arrays:
        assert np.array_equal(after.arrays[name], before.arrays[f"encoder.{name}"])
        assert np.array_equal(after.ema[name], before.ema[f"encoder.{name}"])
    assert after.optimizer is None
    assert after.notes[0] == "encoder only: left out proj, mask_token, decoder, pred"
    assert "moments" in after.notes[1]


def test_a_new_head_makes_an_encoder_whole() -> None:
    encoder = surgery.encoder_only(checkpoint(CLASSIFIER))
    whole = surgery.with_classes(encoder, 9)
    assert whole.model.num_classes == 9
    assert list(whole.arrays) == list(spec.parameters(whole.model))
    assert np.array_equal(whole.arrays["norm.weight"], np.ones(8, np.float32))
    assert 0 < np.abs(whole.arrays["head.weight"]).max() < 0.2
    assert "initialised for 9 classes and a norm of 1 and 0" in whole.notes[-1]


def test_the_norms_of_a_detectors_backbone_do_not_become_a_classifiers() -> None:
    model = spec.encoder(depths=(1, 1), dims=(6, 8), out_norm=True)
    whole = surgery.with_classes(checkpoint(model), 9)
    assert list(whole.arrays) == list(spec.parameters(spec.classifier(depths=(1, 1), dims=(6, 8), num_classes=9)))
    assert whole.notes[0] == "encoder only: left out norm0, norm1"


def test_a_head_of_the_same_size_is_kept() -> None:
    before = checkpoint(CLASSIFIER)
    assert surgery.with_classes(before, 3) is before
    after = surgery.with_classes(before, 4)
    assert np.array_equal(after.arrays["norm.weight"], before.arrays["norm.weight"])


def test_the_ema_takes_the_place_of_the_parameters() -> None:
    before = trained(CLASSIFIER)
    assert_equal(surgery.use_ema(before).arrays, before.ema, "average")
    with pytest.raises(ConvertError, match="has no EMA"):
        surgery.use_ema(checkpoint(CLASSIFIER))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_a_dtype_is_rounded_to_once(dtype: str, tmp_path: Path) -> None:
    before = checkpoint(CLASSIFIER)
    convert.save(surgery.cast(before, dtype), tmp_path / "x.safetensors", format="timm")
    found = convert.load(tmp_path / "x.safetensors").arrays
    assert_equal(found, {name: array.astype(found[name].dtype) for name, array in before.arrays.items()}, dtype)
    assert {array.dtype.name for array in found.values()} == {dtype}


def test_what_overflows_a_dtype_is_refused(tmp_path: Path) -> None:
    before = checkpoint(CLASSIFIER)
    before.arrays["head.bias"][0] = 1e6
    with pytest.raises(ConvertError, match=r"head.bias as float16: 1 of its 3 values are NaN or infinite"):
        convert.save(surgery.cast(before, "float16"), tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: surgery.with_channels(checkpoint(AUTOENCODER), 1), "pixels of 3 channels; add --encoder-only"),
        (lambda: surgery.with_classes(checkpoint(AUTOENCODER), 5), "no classes; add --encoder-only"),
        (lambda: surgery.with_channels(checkpoint(CLASSIFIER), 0), "0 is not a number of channels"),
        (lambda: surgery.with_classes(checkpoint(CLASSIFIER), -2), "-2 is not a number of classes"),
    ],
)
def test_what_cannot_be_asked_is_refused(change: object, message: str) -> None:
    with pytest.raises(ConvertError, match=message):
        change()


def test_arrays_that_are_not_the_models_are_not_saved(tmp_path: Path) -> None:
    arrays = filled(CLASSIFIER)
    for wrong, message in (
        ({**arrays, "more": np.zeros(1)}, "no such array in this model: more"),
        ({**arrays, "head.bias": np.zeros(4)}, r"head.bias: \(4,\) given, the spec says \(3,\)"),
        ({name: a for name, a in arrays.items() if name != "head.bias"}, "missing: head.bias"),
    ):
        with pytest.raises(ConvertError, match=message):
            convert.save(convert.Checkpoint(CLASSIFIER, wrong), tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []
