"""Moments, EMAs and counters: from the published code's files, and between frameworks."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import backends
import convert
import spec
from backends.protocol import State
from convert import ConvertError, formats, naming
from convert.adamw import GROUPINGS
from convert.arrays import Arrays, entries_of
from convert.containers import run
from parity_tests import golden
from tests.convert.samples import assert_equal, checkpoint, filled, trained

AUTOENCODER = spec.fcmae(depths=(1, 2), dims=(8, 9), stem_stride=2, image_size=16, decoder_dim=7)
CLASSIFIER = spec.classifier(depths=(1, 2), dims=(8, 9), num_classes=3)


def assert_same_state(found: convert.Checkpoint, expected: convert.Checkpoint) -> None:
    assert_equal(found.arrays, expected.arrays, "parameters")
    assert_equal(found.ema, expected.ema, "average")
    assert found.optimizer is not None
    assert expected.optimizer is not None
    assert_equal(found.optimizer.mu, expected.optimizer.mu, "first moments")
    assert_equal(found.optimizer.nu, expected.optimizer.nu, "second moments")
    assert found.optimizer.t == expected.optimizer.t
    assert found.meta["epoch"] == expected.meta["epoch"]


@pytest.mark.parametrize(
    ("model", "format", "name"),
    [
        (AUTOENCODER, "official-sparse", "x.pth"),
        (AUTOENCODER, "official-dense", "x.pth"),
        (AUTOENCODER, "ours", "x.pth"),
        (AUTOENCODER, "ours", "x"),
        (CLASSIFIER, "official-dense", "x.pth"),
        (CLASSIFIER, "ours", "x"),
    ],
)
def test_training_state_round_trips(model: spec.Model, format: str, name: str, tmp_path: Path) -> None:
    original = trained(model)
    notes = convert.save(original, tmp_path / name, format=format)
    assert [note for note in notes if "programs of the official-sparse format compute with batch" not in note] == []
    assert_same_state(convert.load(tmp_path / name), original)


@pytest.mark.parametrize(
    ("format", "name"), [("timm", "x.safetensors"), ("timm", "x.pth"), ("hf", "x"), ("mmpretrain", "x.orbax")]
)
def test_what_cannot_be_kept_is_reported(format: str, name: str, tmp_path: Path) -> None:
    first, second, *_ = convert.save(trained(CLASSIFIER), tmp_path / name, format=format)
    assert "AdamW's moments" in first
    assert "t = 7" in first
    assert "EMA" in second


Grouping = Callable[[torch.nn.Module], Any]


def _one(m: torch.nn.Module) -> Any:
    return m.parameters()


def _timm(m: torch.nn.Module) -> Any:
    """The grouping of the published pre-training script: undecayed first, by rank and name."""
    bias = [p for n, p in m.named_parameters() if p.ndim <= 1 or n.endswith(".bias")]
    rest = [p for n, p in m.named_parameters() if not (p.ndim <= 1 or n.endswith(".bias"))]
    return [{"params": bias, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.05}]


def _layers(m: torch.nn.Module) -> Any:
    """The grouping of the published fine-tuning script with layer decay."""
    table, groups = spec.parameters(CLASSIFIER), {}
    for name, p in m.named_parameters():
        spared = p.ndim == 1 or name.endswith((".bias", ".gamma", ".beta"))
        key = (table[name].layer_ids["single"], spared)
        options = {"params": [], "weight_decay": 0.0 if spared else 0.3, "lr_scale": 0.9 ** (4 - key[0])}
        groups.setdefault(key, options)["params"].append(p)
    return list(groups.values())


class Published(torch.nn.Module):
    """Parameters with the names, shapes and order of a published model, and none of its arithmetic."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        super().__init__()
        for name, array in arrays.items():
            *branches, leaf = name.split(".")
            node = self
            for branch in branches:
                if branch not in dict(node.named_children()):
                    node.add_module(branch, torch.nn.Module())
                node = node.get_submodule(branch)
            node.register_parameter(leaf, torch.nn.Parameter(torch.from_numpy(array.copy())))


@pytest.mark.parametrize(
    ("model", "format", "grouping", "expected"),
    [
        (AUTOENCODER, "official-sparse", _one, "one"),
        (AUTOENCODER, "official-sparse", _timm, "undecayed first"),
        (CLASSIFIER, "official-dense", _one, "one"),
        (CLASSIFIER, "official-dense", _layers, "layers, single"),
    ],
)
def test_torch_moments_find_their_names_and_go_back(
    model: spec.Model, format: str, grouping: Grouping, expected: str, tmp_path: Path
) -> None:
    named = naming.foreign(formats.named(format), model, entries_of(filled(model)))
    module = Published({name: np.ascontiguousarray(entry.read()) for name, entry in named.items()})
    assert [name for name, _ in module.named_parameters()] == list(named)
    optimizer = torch.optim.AdamW(grouping(module), lr=1e-3, betas=(0.9, 0.95))
    for p in module.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 4}, tmp_path / "x.pth")

    found = convert.load(tmp_path / "x.pth")
    moments = {name: optimizer.state[p]["exp_avg"].numpy() for name, p in module.named_parameters()}
    assert_equal(
        found.optimizer.mu, Arrays(naming.canonical(formats.named(format), model, entries_of(moments))), "by name"
    )
    assert (found.optimizer.t, found.optimizer.hyper["grouping"]) == (1, expected)

    convert.save(found, tmp_path / "run")
    convert.save(convert.load(tmp_path / "run"), tmp_path / "back.pth", format=format)
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    fresh = torch.optim.AdamW(grouping(module), lr=1.0)
    fresh.load_state_dict(back["optimizer"])
    for p in module.parameters():
        assert torch.equal(fresh.state[p]["exp_avg"], optimizer.state[p]["exp_avg"])
        assert torch.equal(fresh.state[p]["exp_avg_sq"], optimizer.state[p]["exp_avg_sq"])
        assert fresh.state[p]["step"] == 1
    for ours, theirs in zip(fresh.param_groups, optimizer.param_groups, strict=True):
        assert {k: v for k, v in ours.items() if k not in ("params", "betas")} == {
            k: v for k, v in theirs.items() if k not in ("params", "betas")
        }


def test_groupings_that_differ_are_distinguished() -> None:
    from convert.checkpoint import _rows

    entries = naming.foreign(formats.SPARSE, AUTOENCODER, entries_of(filled(AUTOENCODER)))
    orders = [
        [[row.name for row in group] for group in split(_rows(formats.SPARSE, AUTOENCODER, entries))]
        for split in GROUPINGS.values()
    ]
    assert all(sorted(chain.from_iterable(order)) == sorted(entries) for order in orders)
    assert len({str(order) for order in orders}) == len(orders)


def test_the_golden_moments_are_those_of_one_step() -> None:
    found = convert.load(golden.FOLDER / "official_fcmae.pth")
    assert found.optimizer.t == 1
    b1, b2 = found.optimizer.hyper["betas"]
    for name, mu in found.optimizer.mu.items():
        gradient = mu.astype(np.float64) / (1 - b1)  # both moments began at zero
        expected = (1 - b2) * gradient**2
        off = np.abs(found.optimizer.nu[name] - expected).max()
        assert off <= np.finfo(np.float32).eps * 8 * max(expected.max(), np.finfo(np.float32).tiny), name


def test_a_run_continues_in_the_other_framework(tmp_path: Path) -> None:
    state = State(*(filled(AUTOENCODER, seed=k) for k in range(4)), t=12)
    state.nu = {name: array**2 for name, array in state.nu.items()}
    meta = {"identity": {"model": convert.models.describe(AUTOENCODER)}, "epoch": 2.5}
    step = tmp_path / "run" / "checkpoints" / run.name_of(12)
    run.save(step, 12, state, meta)
    found = convert.load(tmp_path / "run")
    assert found.model == AUTOENCODER
    convert.save(found, tmp_path / "x.pth", format="official-sparse")
    convert.save(convert.load(tmp_path / "x.pth"), tmp_path / "step-00000012")
    again = run.load(tmp_path / "step-00000012")
    assert (again.step, again.state.t) == (12, 12)
    assert run.load(step).meta["epoch"] == again.meta["epoch"]
    for part in ("params", "mu", "nu", "ema"):
        assert_equal(dict(sorted(getattr(again.state, part).items())), dict(sorted(getattr(state, part).items())), part)
    for name in backends.installed():
        trainer = backends.load(name).Trainer(AUTOENCODER, backends.protocol.Optimizer(ema_decay=0.9))
        trainer.restore(again.state)
        assert_equal(trainer.export().mu, state.mu, name)


def _damaged(change: Callable[[dict[str, Any]], None], path: Path) -> Path:
    convert.save(trained(AUTOENCODER), path, format="official-sparse")
    content = torch.load(path, weights_only=True)
    change(content["optimizer"])
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o["state"][3].update(step=torch.tensor(9.0)), "different numbers of updates: 7, 9"),
        (lambda o: o["state"].pop(0), "fit the 53 parameters in none"),
        (lambda o: o["state"][0].update(exp_avg=torch.zeros(5)), "fit the 53 parameters in none"),
        (lambda o: o["param_groups"][0]["params"].reverse(), "fit the 53 parameters in none"),
        (lambda o: o.pop("state"), "no state and param_groups"),
    ],
)
def test_moments_that_fit_nothing_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    path = _damaged(change, tmp_path / "x.pth")
    with pytest.raises(ConvertError, match=message):
        convert.load(path)
    assert_equal(convert.load(path, weights_only=True).arrays, filled(AUTOENCODER), "the weights are sound")


def test_a_negative_second_moment_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = _damaged(lambda o: o["state"][0]["exp_avg_sq"].neg_(), tmp_path / "x.pth")
    with pytest.raises(ConvertError, match="second moment is negative"):
        convert.save(convert.load(path), tmp_path / "y")
    assert not (tmp_path / "y").exists()


def test_an_optimizer_that_is_not_adam_is_left_out_with_a_note(tmp_path: Path) -> None:
    path = _damaged(lambda o: [one.pop("exp_avg") for one in o["state"].values()], tmp_path / "x.pth")
    found = convert.load(path)
    assert found.optimizer is None
    assert any("optimizer" in note for note in found.notes)


def test_a_damaged_run_is_refused_by_its_manifest(tmp_path: Path) -> None:
    convert.save(checkpoint(CLASSIFIER), tmp_path / "run")
    file = tmp_path / "run" / "params.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ConvertError, match=r"params.safetensors: its checksum is not the manifest's"):
        convert.load(tmp_path / "run")
