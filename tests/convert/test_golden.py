"""A published checkpoint, converted, computes in JAX what the published code computed."""

from pathlib import Path

import numpy as np
import pytest

import backends
import convert
import spec
from convert.__main__ import main
from parity_tests import golden
from parity_tests.tolerances import GOLDEN, assert_all_close, assert_close
from tests.convert.samples import assert_equal


def test_a_converted_training_checkpoint_reproduces_loss_prediction_and_gradients(tmp_path: Path) -> None:
    output = tmp_path / "x.flax.safetensors"
    assert main(["torch2jax", str(golden.FOLDER / "official_fcmae.pth"), "-o", str(output)]) == 0
    found, expected = convert.load(output), golden.fcmae(1)
    jax = backends.load("jax")
    m = jax.build(found.model)
    jax.set_arrays(m, found.arrays)
    out = jax.forward(m, expected.images, expected.mask)
    for key in ("loss", "prediction", "encoded"):
        assert_close(out[key], expected.outputs[key], GOLDEN, key)
    gradients = jax.gradients(m, expected.images, expected.mask)
    assert_all_close(gradients, expected.gradients, GOLDEN, "gradients")


@pytest.mark.parametrize("name", ["x.npz", "x.msgpack", "x.orbax", "x.safetensors", "x.pth"])
def test_every_container_carries_the_published_arrays(name: str, tmp_path: Path) -> None:
    assert main(["torch2jax", str(golden.FOLDER / "official_fcmae.pth"), "-o", str(tmp_path / name)]) == 0
    assert_equal(convert.load(tmp_path / name).arrays, golden.fcmae(1).arrays, name)


def test_a_converted_classifier_reproduces_logits_in_both_frameworks(tmp_path: Path) -> None:
    source = str(golden.FOLDER / "official_classifier.pth")
    assert main(["torch2jax", source, "-o", str(tmp_path / "x.safetensors")]) == 0
    assert main(["jax2torch", str(tmp_path / "x.safetensors"), "-o", str(tmp_path / "y.pth")]) == 0
    expected = golden.classifier()
    for file, framework in ((tmp_path / "x.safetensors", "jax"), (tmp_path / "y.pth", "torch")):
        found, backend = convert.load(file), backends.load(framework)
        m = backend.build(found.model)
        backend.set_arrays(m, found.arrays)
        out = backend.forward(m, expected.images)
        assert_close(out["logits"], expected.outputs["logits"], GOLDEN, framework)


def test_the_published_file_comes_back_as_it_was(tmp_path: Path) -> None:
    import argparse

    import torch

    source = golden.FOLDER / "official_fcmae.pth"
    assert main(["translate", str(source), "--to", "ours", "-o", str(tmp_path / "run")]) == 0
    assert main(["translate", str(tmp_path / "run"), "--to", "official-sparse", "-o", str(tmp_path / "x.pth")]) == 0
    with torch.serialization.safe_globals([argparse.Namespace]):
        before = torch.load(source, weights_only=True)
    after = torch.load(tmp_path / "x.pth", weights_only=True)
    assert list(after["model"]) == list(before["model"])
    assert all(torch.equal(after["model"][name], tensor) for name, tensor in before["model"].items())
    assert after["epoch"] == before["epoch"]
    assert after["args"] == vars(before["args"])
    state, back = before["optimizer"]["state"], after["optimizer"]["state"]
    assert list(back) == list(state)
    for index, one in state.items():
        assert all(torch.equal(back[index][key], value) for key, value in one.items()), index
    for group, again in zip(before["optimizer"]["param_groups"], after["optimizer"]["param_groups"], strict=True):
        assert {**again, "betas": tuple(again["betas"])} == group


def test_the_dense_encoder_of_a_sparse_checkpoint_serves_a_classifier(tmp_path: Path) -> None:
    source = str(golden.FOLDER / "official_fcmae.pth")
    options = ["--to", "official-dense", "--encoder-only", "-o", str(tmp_path / "x.pth")]
    assert main(["translate", source, *options]) == 0
    found, whole = convert.load(tmp_path / "x.pth"), golden.fcmae(1)
    assert found.model == spec.Backbone(whole.model.encoder)
    assert list(found.arrays) == list(spec.parameters(found.model))
    for name, array in found.arrays.items():
        assert np.array_equal(array, whole.arrays[f"encoder.{name}"]), name
    assert main(["translate", str(tmp_path / "x.pth"), "--to", "official-sparse", "-o", str(tmp_path / "y.pth")]) == 0
    assert convert.load(tmp_path / "y.pth").meta["format"] == "official-sparse"
