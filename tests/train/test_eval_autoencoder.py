"""`--task eval` of an autoencoder: the masked loss of held-out images, whatever shares the work."""

import json
from pathlib import Path

import numpy as np
import pytest

import backends
import convert
from parity_tests import tolerances
from parity_tests.oracle.training import normalised
from tests.train.images import tree
from train.__main__ import main
from train.config import cli
from train.data.masks import masks_of
from train.data.sources import open_source
from train.data.supervised import EvalBatches
from train.tasks import weights
from train.tasks.pretrain import PICTURE_POSITION

FCMAE = Path(__file__).parents[2] / "parity_tests" / "golden" / "official_fcmae.pth"
SIZE = "--input_size 64 96 --mask_ratio 0.5 --grn_scope image --precision float64"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images, one of them broken."""
    root = tree(tmp_path_factory.mktemp("images"), classes=2, each=5)
    (root / "c1" / "2.jpg").write_bytes(b"no image")
    return root


def evaluate(images: Path, out: Path, *more: str) -> float:
    words = ["--task", "eval", "--finetune", str(FCMAE), "--data_path", str(images), "--output_dir", str(out)]
    assert main([*words, *SIZE.split(), *more]) == 0
    found = json.loads((out / "eval.json").read_text())
    assert found["eval_skipped"] == 1
    return float(found["masked_loss"])


@pytest.fixture(scope="module")
def expected(images: Path) -> float:
    """The backend's own loss of each image alone, with the mask of its number."""
    config = cli.parse(["--task", "eval", "--finetune", str(FCMAE), "--data_path", str(images), *SIZE.split()])
    model, arrays = weights.autoencoder(config, str(FCMAE))
    assert model.grid == (2, 3)
    backend = backends.load("torch")
    module = backend.build(model, dtype="float64")
    backend.set_arrays(module, arrays)
    batches = EvalBatches(open_source(str(images)), (0, 0), 3, (64, 96), 224 / 256, 1)
    losses = []
    for index in (number for number in range(10) if number != 7):
        images = batches(index)[0]["images"]
        mask = masks_of(config, model, batches.source)(PICTURE_POSITION + np.array([index]), images)["mask"]
        pixels = normalised(images, config.data.mean, config.data.std)
        losses.append(float(backend.forward(module, pixels, mask)["loss"]))
    return float(np.mean(losses))


@pytest.mark.parametrize("how", ["--batch_size 4", "--batch_size 3 --num_workers 3 --engine masked"])
@pytest.mark.parametrize("backend", backends.installed())
def test_the_loss_is_that_of_each_image_alone(
    images: Path, expected: float, tmp_path: Path, backend: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate(images, tmp_path, "--backend", backend, *how.split())
    tolerances.assert_close(np.array(found), np.array(expected), tolerances.TRAJECTORY["float64"], "loss")
    said = capsys.readouterr().out
    assert f"masked_loss {found:.4f}, over 9 of 10 images (1 could not be read)\n" in said


def test_another_seed_draws_other_masks(images: Path, expected: float, tmp_path: Path) -> None:
    found = evaluate(images, tmp_path, "--backend", "torch", "--seed", "1")
    assert tolerances.gap(np.array(found), np.array(expected)) > tolerances.TRAJECTORY["float64"]


def test_a_loss_that_depends_on_the_batch_says_so(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(images, tmp_path, "--backend", "torch", "--grn_scope", "batch")
    assert "note: GRN sums over a batch (--grn_scope batch), so the loss depends on --batch_size\n" in (
        capsys.readouterr().out
    )


def test_the_model_is_as_the_checkpoint_says() -> None:
    config = cli.parse(["--task", "eval", "--finetune", str(FCMAE), "--data_path", "D"])
    model = convert.load(FCMAE).model
    assert (config.model.mask_ratio, config.data.image_size) == (model.mask_ratio, model.image_size)
