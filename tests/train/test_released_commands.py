"""The released commands, scaled down by flags, make two updates in both frameworks on a folder of images."""

import json
import math
from pathlib import Path

import pytest

import backends
from convert.containers.run import RunCheckpoint
from tests.train import released
from tests.train.images import tree
from train.__main__ import main
from train.checkpoints import store
from train.config.recipes import RELEASED

SMALL = "--depths 1 1 1 1 --dims 8 8 8 8 --input_size 64 --batch_size 4 --update_freq 2 --max_steps 2 --num_workers 1"
PRETRAIN, *FINETUNE = RELEASED
OWN = {"pretrain": "--decoder_embed_dim 8 --parity_check False", "finetune": "--mix_group 4"}
"""Task -> the flags that scale its own part down."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imagenet")
    tree(root / "train", classes=2, each=8)
    tree(root / "val", classes=2, each=3)
    return root


def run(recipe: str, backend: str, **places: Path) -> RunCheckpoint:
    """The last checkpoint of a recipe's released command with real paths in it."""
    names = {"data": "DATA", "out": "OUT", "start": "CKPT"}
    words = [
        str({names[key]: path for key, path in places.items()}.get(word, word)) for word in released.started(recipe)
    ]
    small = f"{SMALL} {OWN[recipe.split('_')[0]]}"
    assert main([*words, *small.split(), "--backend", backend]) == 0
    found = store.newest(places["out"] / "checkpoints", print)
    assert found is not None
    return found


def metrics(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def pretrained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of the pre-training command in one framework, from which both fine-tune."""
    out = tmp_path_factory.mktemp("runs") / "pretrained"
    run(PRETRAIN, backends.NAMES[0], data=images, out=out)
    return out


@pytest.mark.parametrize("backend", backends.installed())
def test_pre_training(images: Path, tmp_path: Path, backend: str) -> None:
    found = run(PRETRAIN, backend, data=images, out=tmp_path / "run")
    assert found.step == found.state.t == 2
    assert math.isfinite(metrics(tmp_path / "run")[-1]["loss"])
    assert found.meta["config"]["epochs"] == 1600


@pytest.mark.parametrize("backend", backends.installed())
@pytest.mark.parametrize("recipe", FINETUNE)
def test_fine_tuning(images: Path, pretrained: Path, tmp_path: Path, backend: str, recipe: str) -> None:
    out = tmp_path / "run"
    found = run(recipe, backend, data=images, out=out, start=pretrained)
    assert found.step == found.state.t == 2
    assert found.state.ema.keys() == found.state.params.keys()
    train, evaluated = metrics(out)
    assert math.isfinite(train["loss"])
    assert evaluated["step"] == 2
    assert {"acc1", "acc5", "val_loss", "acc1_ema", "acc5_ema", "val_loss_ema"} <= evaluated.keys()
    assert all(len(list((out / f"best_{name}").iterdir())) == 1 for name in ("acc1", "acc1_ema"))
    assert (found.meta["config"]["precision"], found.meta["classes"]) == ("bfloat16", ["c0", "c1"])
