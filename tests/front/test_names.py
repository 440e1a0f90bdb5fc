"""`import twinnext`: its names, and modules built from models and checkpoints."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import backends
import twinnext as tn
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


def test_what_an_encoder_lacks_is_drawn_with_a_warning() -> None:
    encoder = checkpoint(CLASSIFIER)
    encoder.arrays = {name: array for name, array in encoder.arrays.items() if not name.startswith("head.")}
    with pytest.warns(UserWarning, match="the checkpoint has no head: drawn from seed 3"):
        module = tn.build(encoder, "torch", seed=3)
    fresh, found = backends.initial.initial_arrays(CLASSIFIER, 3), tn.backend("torch").get_arrays(module)
    assert_same({"head.weight": found["head.weight"]}, {"head.weight": fresh["head.weight"]}, "head")
    assert_same({"norm.bias": found["norm.bias"]}, {"norm.bias": filled(CLASSIFIER)["norm.bias"]}, "norm")


def test_the_default_backend_is_the_installed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "installed", lambda: ("jax",))
    assert type(tn.build(CLASSIFIER)).__module__ == "backends.jax.model"
    monkeypatch.setattr(backends, "installed", lambda: ())
    with pytest.raises(tn.BackendError, match="neither torch nor jax is installed; pip install"):
        tn.build(CLASSIFIER)
