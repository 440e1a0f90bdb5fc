"""`import twinnext`: its names, and modules built from models and checkpoints."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import backends
import twinnext as tn
from convert import formats, surgery
from convert.checkpoint import _to_content
from convert.containers import safetensors
from parity_tests.tolerances import assert_same
from tests.convert.samples import checkpoint, filled

CLASSIFIER = tn.classifier(depths=(1,), dims=(8,), num_classes=3, stem_stride=2)


def test_every_name_is_there_and_the_errors_are_value_errors() -> None:
    assert all(hasattr(tn, name) for name in tn.__all__)
    assert all(
        issubclass(error, ValueError) for error in (tn.SpecError, tn.BackendError, tn.ConvertError, tn.TrainError)
    )


def test_the_names_are_those_of_the_packages() -> None:
    """The package holds no logic: every function and class is defined elsewhere."""
    own = {name for name in tn.__all__ if getattr(getattr(tn, name), "__module__", "spec").startswith("twinnext")}
    assert own == set()


def test_importing_it_imports_no_framework() -> None:
    program = "import sys, twinnext; print({'torch', 'jax', 'PIL', 'orbax'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("backend", ["torch", "jax"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_checkpoint_of_any_format_becomes_a_module(backend: str, dtype: str, tmp_path: Path) -> None:
    tn.save(checkpoint(CLASSIFIER, dtype), tmp_path / "x.pth", format="timm")
    module = tn.build(tn.load(tmp_path / "x.pth"), backend)
    expected = {name: array.astype(np.float32) for name, array in filled(CLASSIFIER, dtype).items()}
    assert_same(backends.load(backend).get_arrays(module), expected, f"{backend} from {dtype}")


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_model_becomes_a_module_with_fresh_parameters(backend: str) -> None:
    built = tn.backend(backend).get_arrays(tn.build(CLASSIFIER, backend, seed=3))
    assert_same(built, backends.initial.initial_arrays(CLASSIFIER, 3), backend)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_an_encoder_file_is_a_model_without_a_head(backend: str, tmp_path: Path) -> None:
    encoder = surgery.encoder_only(checkpoint(CLASSIFIER))
    tn.save(encoder, tmp_path / "x.pth", format="official-dense")
    loaded = tn.load(tmp_path / "x.pth")
    assert loaded.model == tn.Backbone(CLASSIFIER.encoder)
    module = tn.build(loaded, backend)
    assert_same(tn.backend(backend).get_arrays(module), dict(encoder.arrays), backend)
    patch = CLASSIFIER.encoder.patch_size
    found = tn.backend(backend).forward(module, np.ones((1, patch, patch, CLASSIFIER.encoder.in_chans)))
    assert [value.shape[-1] for value in found.values()] == list(CLASSIFIER.encoder.dims)


def test_a_file_that_records_a_classifier_and_lacks_its_head_is_an_encoder(tmp_path: Path) -> None:
    content = _to_content(checkpoint(CLASSIFIER), formats.named("ours"), in_torch=False)
    for parts, model in ((("head",), replace(CLASSIFIER, num_classes=0)), (("norm",), tn.Backbone(CLASSIFIER.encoder))):
        content.params = {name: p for name, p in content.params.items() if name.split(".")[0] not in parts}
        assert content.model == CLASSIFIER
        safetensors.write(tmp_path / "x.safetensors", content)
        assert tn.load(tmp_path / "x.safetensors").model == model


def test_the_default_backend_is_the_installed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "installed", lambda: ("jax",))
    assert type(tn.build(CLASSIFIER)).__module__ == "backends.jax.model"
    monkeypatch.setattr(backends, "installed", lambda: ())
    with pytest.raises(tn.BackendError, match="neither torch nor jax is installed; pip install"):
        tn.build(CLASSIFIER)
