"""Modules called directly, as in a user's own loop: any mask, no mask, wrong shapes, drop path, and casts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import backends
import spec
from backends.protocol import BackendError, Batch, Optimizer, TrainerOptions
from parity_tests import oracle, tolerances
from parity_tests.strategies import CASES, Case

FCMAE = CASES["dead channels"]
MORE = np.array([[[0, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 1]]], np.uint8)
"""Keeps 5 of 6 patches, where the ratio of the model keeps 3."""

UNEVEN = np.array([[[0, 1, 1], [1, 1, 1]], [[0, 0, 0], [0, 1, 1]]], np.uint8)
DROPPING = spec.classifier(depths=(2,), dims=(8,), num_classes=3, stem_stride=2, drop_path=0.9)


@dataclass(frozen=True)
class Framework:
    """A backend whose modules take and give numpy arrays here, without `forward` around them."""

    name: str

    def build(self, model: spec.Model, arrays: dict[str, np.ndarray], dtype: str = "float64") -> Any:
        backend = backends.load(self.name)
        net = backend.build(model, dtype=dtype)
        backend.set_arrays(net, arrays)
        return net

    def call(
        self, net: Any, images: np.ndarray, mask: np.ndarray | None = None, **options: Any
    ) -> dict[str, np.ndarray]:
        """What the module returns, in numpy."""
        out = self._call(net, images, mask, **options)
        return {name: np.array(value.tolist(), float) for name, value in out.items()}

    def dtype(self, net: Any, images: np.ndarray, mask: np.ndarray) -> str:
        """The type of the model's prediction."""
        return str(self._call(net, images, mask)["prediction"].dtype).removeprefix("torch.")

    def _call(self, net: Any, images: np.ndarray, mask: np.ndarray | None, **options: Any) -> dict[str, Any]:
        """With values of masks known: JAX compiles the images only, since it is slow step by step."""
        if self.name == "torch":
            import torch

            tensors = [None if value is None else torch.from_numpy(value) for value in (images, mask)]
            options = {key: torch.from_numpy(o) if isinstance(o, np.ndarray) else o for key, o in options.items()}
            with torch.no_grad():
                return net(*tensors, **options)
        import jax

        with jax.enable_x64(images.dtype == np.float64):
            return jax.jit(lambda images: net(images, mask, **options))(images)

    def cast(self, net: Any, dtype: str) -> None:
        """The parameters in another type, as users of each framework do it."""
        if self.name == "torch":
            import torch

            net.to(getattr(torch, dtype))
            return
        import jax
        from flax import nnx

        nnx.update(net, jax.tree.map(lambda p: p.astype(dtype), nnx.state(net)))


frameworks = pytest.mark.parametrize(
    "framework", [Framework(name) for name in backends.installed()], ids=lambda f: f.name
)


@frameworks
@pytest.mark.parametrize("mask", [FCMAE.mask, MORE, UNEVEN], ids=["of the ratio", "keeps more", "uneven"])
def test_any_mask(framework: Framework, mask: np.ndarray) -> None:
    """The engine and the number of visible patches follow from the mask, not from the model's ratio."""
    net = framework.build(FCMAE.model, FCMAE.arrays)
    expected = oracle.forward(FCMAE.model, FCMAE.arrays, FCMAE.images, mask)
    found = framework.call(net, FCMAE.images, mask)
    expected = {name: expected[name] for name in found}
    tolerances.assert_all_close(found, expected, tolerances.forward("float64", FCMAE), framework.name)
    if mask is not UNEVEN:
        kept = int((mask[0] == 0).sum())
        found = framework.call(net, FCMAE.images, mask, engine="visible", visible=kept)
        tolerances.assert_all_close(found, expected, tolerances.forward("float64", FCMAE), framework.name)


@frameworks
@pytest.mark.parametrize("engine", [None, "masked", "visible"])
def test_without_a_mask_all_is_encoded_and_there_is_no_loss(framework: Framework, engine: str | None) -> None:
    net = framework.build(FCMAE.model, FCMAE.arrays)
    found = framework.call(net, FCMAE.images, engine=engine)
    expected = oracle.forward(FCMAE.model, FCMAE.arrays, FCMAE.images, np.zeros_like(FCMAE.mask))
    assert np.isnan(found.pop("loss"))
    expected = {name: expected[name] for name in found}
    tolerances.assert_all_close(found, expected, tolerances.forward("float64", FCMAE), framework.name)


@frameworks
def test_channels_first_images_are_refused_with_the_transpose(framework: Framework) -> None:
    net, images = framework.build(FCMAE.model, FCMAE.arrays), FCMAE.images.transpose(0, 3, 1, 2)
    with pytest.raises(BackendError, match=r"^images: .* is not \(N, H, W, 3\); .*transpose to \(0, 2, 3, 1\)"):
        framework.call(net, images, FCMAE.mask)
    framework.call(net, images.transpose(0, 2, 3, 1), FCMAE.mask)  # as it says


@frameworks
def test_flat_masks_are_refused_with_the_reshape(framework: Framework) -> None:
    net, mask = framework.build(FCMAE.model, FCMAE.arrays), FCMAE.mask.reshape(2, 6)
    with pytest.raises(BackendError, match=r"^mask: \(2, 6\) is not \(2, 2, 3\), .*; mask\.reshape\(2, 2, 3\)"):
        framework.call(net, FCMAE.images, mask)
    framework.call(net, FCMAE.images, mask.reshape(2, 2, 3))  # as it says


@frameworks
def test_another_number_of_visible_patches_than_the_mask_keeps_is_refused(framework: Framework) -> None:
    net = framework.build(FCMAE.model, FCMAE.arrays)
    with pytest.raises(BackendError, match=r"^visible: 3, and the mask keeps 5 of 6 patches per image"):
        framework.call(net, FCMAE.images, MORE, engine="visible", visible=3)


DROP = Case(DROPPING, (2, 2), 4)


@frameworks
def test_training_with_drop_path_needs_its_decisions(framework: Framework) -> None:
    net = framework.build(DROPPING, DROP.arrays)
    with pytest.raises(BackendError, match=r"^keep_paths: missing in training mode with drop_path 0\.9; .*\.eval\(\)"):
        framework.call(net, DROP.images)
    with pytest.raises(BackendError, match=r"^keep_paths: \(2,\) is not \(2, 2\), "):
        framework.call(net, DROP.images, keep_paths=np.ones(2))
    dropped = framework.call(net, DROP.images, keep_paths=np.array([[1, 0], [1, 1]]))
    net.eval()  # as the message says
    kept = framework.call(net, DROP.images)
    bound = tolerances.forward("float64", DROP)
    assert tolerances.gap(dropped["logits"], kept["logits"]) > bound
    expected = oracle.forward(DROPPING, DROP.arrays, DROP.images, None)
    tolerances.assert_close(kept["logits"], expected["logits"], bound, framework.name)
    net.train()
    with pytest.raises(BackendError, match=r"^keep_paths: missing"):
        framework.call(net, DROP.images)


@frameworks
def test_what_evaluates_drops_nothing_and_leaves_the_mode_alone(framework: Framework) -> None:
    net = framework.build(DROPPING, DROP.arrays)
    found = backends.load(framework.name).forward(net, DROP.images)
    expected = oracle.forward(DROPPING, DROP.arrays, DROP.images, None)
    tolerances.assert_close(found["logits"], expected["logits"], tolerances.forward("float64", DROP), framework.name)
    with pytest.raises(BackendError, match=r"^keep_paths: missing"):
        framework.call(net, DROP.images)


@frameworks
def test_a_trainer_needs_the_decisions_and_its_evaluation_does_not(framework: Framework) -> None:
    options = TrainerOptions(device="cpu", dtype="float64")
    trainer = backends.load(framework.name).Trainer(DROPPING, Optimizer(), options)
    batch = Batch(images=DROP.images, targets=np.eye(3, dtype=np.float32)[:2])
    assert trainer.evaluate(batch)["logits"].shape == (2, 3)
    with pytest.raises(BackendError, match=r"^keep_paths: missing"):
        trainer.step([batch], 1e-3)


@frameworks
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_cast_module_computes_in_its_new_type(framework: Framework, dtype: str) -> None:
    """Of parameters in float32; setting new values keeps the type."""
    net = framework.build(FCMAE.model, FCMAE.arrays, "float32")
    framework.cast(net, dtype)
    backends.load(framework.name).set_arrays(net, FCMAE.arrays)
    assert framework.dtype(net, np.float32(FCMAE.images), FCMAE.mask) == dtype
    found = framework.call(net, np.float32(FCMAE.images), FCMAE.mask)
    expected = oracle.forward(FCMAE.model, FCMAE.arrays, FCMAE.images, FCMAE.mask)
    for name, array in found.items():
        tolerances.assert_close(array, expected[name], tolerances.forward("bfloat16", FCMAE), f"{dtype}, {name}")
