"""Training states of Flax programs: moments, count, step and EMA, written to every tree of arrays and read back."""

from pathlib import Path
from typing import Any

import flax.serialization
import flax.traverse_util
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import torch
from flax import nnx
from flax.training.train_state import TrainState

import backends
import convert
import spec
from convert import ConvertError
from convert.__main__ import main
from tests.convert.samples import assert_equal, filled, trained

AUTOENCODER = spec.fcmae(depths=(1,), dims=(6,), stem_stride=2, image_size=8, decoder_dim=7)
CLASSIFIER = spec.classifier(depths=(1,), dims=(6,), num_classes=3, stem_stride=2)
TREES = ("x.safetensors", "x.npz", "x.msgpack", "x.orbax")


@pytest.mark.parametrize("name", TREES)
def test_torch2jax_carries_the_moments(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert.save(trained(AUTOENCODER), tmp_path / "ckpt.pth", format="official-sparse")
    assert main(["torch2jax", str(tmp_path / "ckpt.pth"), "-o", str(tmp_path / name)]) == 0
    assert "moments" not in capsys.readouterr().out
    before, found = convert.load(tmp_path / "ckpt.pth"), convert.load(tmp_path / name)
    assert found.optimizer.t == 7
    assert_equal(found.arrays, before.arrays, "params")
    assert_equal(found.ema, before.ema, "EMA")
    assert_equal(found.optimizer.mu, before.optimizer.mu, "mu")
    assert_equal(found.optimizer.nu, before.optimizer.nu, "nu")
    assert convert.load(tmp_path / name, weights_only=True).optimizer is None


@pytest.mark.parametrize("name", TREES)
def test_the_way_back_to_torch(name: str, tmp_path: Path) -> None:
    convert.save(trained(AUTOENCODER), tmp_path / "a.pth", format="official-sparse")
    convert.save(convert.load(tmp_path / "a.pth"), tmp_path / name, format="flax")
    convert.save(convert.load(tmp_path / name), tmp_path / "b.pth", format="official-sparse")
    a, b = (torch.load(tmp_path / file, weights_only=True)["optimizer"] for file in ("a.pth", "b.pth"))
    assert a["state"].keys() == b["state"].keys()
    for index, moments in a["state"].items():
        assert all(torch.equal(moments[key], b["state"][index][key]) for key in ("step", "exp_avg", "exp_avg_sq"))
    if name != "x.msgpack":  # it has no room for lr and the like, and says so
        assert a["param_groups"] == b["param_groups"]


def test_msgpack_says_that_it_has_no_room_for_options(tmp_path: Path) -> None:
    convert.save(trained(AUTOENCODER), tmp_path / "x.pth", format="official-sparse")
    left = convert.save(convert.load(tmp_path / "x.pth"), tmp_path / "x.msgpack", format="flax")
    (note,) = (line for line in left if not line.startswith("not recorded: "))
    assert note.startswith("left out: lr, betas")


def test_optax_takes_the_state_as_it_is(tmp_path: Path) -> None:
    convert.save(trained(AUTOENCODER), tmp_path / "x.msgpack", format="flax")
    tree = flax.serialization.msgpack_restore((tmp_path / "x.msgpack").read_bytes())
    state = optax.ScaleByAdamState(**tree["opt_state"])
    assert int(tree["step"]) == int(state.count) == 7
    _, after = optax.scale_by_adam().update(tree["params"], state, tree["params"])
    assert int(after.count) == 8


def flax_tree(model: spec.Model, seed: int = 0) -> dict[str, Any]:
    """The parameters of a Flax program that has the spec's tree."""
    from convert import formats, naming
    from convert.arrays import entries_of

    named = naming.foreign(formats.FLAX, model, entries_of(filled(model, seed=seed)))
    return flax.traverse_util.unflatten_dict({tuple(n.split(".")): np.array(e.read()) for n, e in named.items()})


def adam(state: Any) -> Any:
    """The moments in a state of optax, wherever they are."""
    is_adam = lambda node: isinstance(node, optax.ScaleByAdamState)  # noqa: E731
    return [node for node in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(node)]


def stepped(tx: optax.GradientTransformation, params: Any) -> TrainState:
    state = TrainState.create(apply_fn=None, params=params, tx=tx)
    return state.apply_gradients(grads=flax_tree(CLASSIFIER, seed=9))


CHAIN = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(1e-3, 100)))


@pytest.mark.parametrize("wrapped", [False, True], ids=["params", "params in params"])
def test_a_train_state_of_flax_is_read(wrapped: bool, tmp_path: Path) -> None:
    params = flax_tree(CLASSIFIER)
    state = TrainState.create(apply_fn=None, params={"params": params} if wrapped else params, tx=CHAIN)
    grads = flax_tree(CLASSIFIER, seed=9)
    state = state.apply_gradients(grads={"params": grads} if wrapped else grads)
    assert isinstance(state.step, int)
    (tmp_path / "x.msgpack").write_bytes(flax.serialization.to_bytes(state))
    found = convert.load(tmp_path / "x.msgpack")
    assert (found.meta["format"], found.model, found.optimizer.t) == ("flax", CLASSIFIER, 1)
    (moments,) = adam(state.opt_state)
    mu = moments.mu["params"] if wrapped else moments.mu
    assert np.array_equal(found.optimizer.mu["head.weight"], mu["head"]["kernel"].T)
    assert found.notes == []


@pytest.mark.parametrize("save", [ocp.StandardCheckpointer, ocp.PyTreeCheckpointer])
def test_a_train_state_in_orbax_is_read(save: Any, tmp_path: Path) -> None:
    state = stepped(CHAIN, flax_tree(CLASSIFIER))
    with save() as checkpointer:
        checkpointer.save(tmp_path / "x", state)
    found = convert.load(tmp_path / "x")
    assert found.optimizer.t == 1
    (moments,) = adam(state.opt_state)
    assert np.array_equal(found.optimizer.nu["head.weight"], moments.nu["head"]["kernel"].T)


def test_moments_of_several_groups_are_joined(tmp_path: Path) -> None:
    labels = jax.tree_util.tree_map_with_path(
        lambda path, _: "spared" if path[-1].key == "bias" else "decay", flax_tree(CLASSIFIER)
    )
    groups = {"decay": optax.adamw(1e-3), "spared": optax.adamw(1e-3, weight_decay=0.0)}
    state = stepped(optax.multi_transform(groups, labels), flax_tree(CLASSIFIER))
    (tmp_path / "x.msgpack").write_bytes(flax.serialization.to_bytes(state))
    found = convert.load(tmp_path / "x.msgpack").optimizer
    spared, decay = sorted(adam(state.opt_state), key=lambda one: isinstance(one.mu["head"]["kernel"], jax.Array))
    assert np.array_equal(found.mu["head.bias"], spared.mu["head"]["bias"])
    assert np.array_equal(found.mu["head.weight"], decay.mu["head"]["kernel"].T)


def test_counts_that_differ_are_refused(tmp_path: Path) -> None:
    tree = flax.serialization.to_state_dict(stepped(CHAIN, flax_tree(CLASSIFIER)))
    tree["opt_state"]["2"] = {**tree["opt_state"]["1"]["0"], "count": 5}
    (tmp_path / "x.msgpack").write_bytes(flax.serialization.msgpack_serialize(tree))
    with pytest.raises(ConvertError, match=r"its moments have made \[1, 5\] updates; expected one number"):
        convert.load(tmp_path / "x.msgpack")
    found = convert.load(tmp_path / "x.msgpack", weights_only=True)
    assert list(found.arrays) == list(spec.parameters(CLASSIFIER))
    assert found.optimizer is None


def test_an_optimizer_without_moments_is_left_out_with_a_note(tmp_path: Path) -> None:
    state = stepped(optax.sgd(0.1, momentum=0.9), flax_tree(CLASSIFIER))
    (tmp_path / "x.msgpack").write_bytes(flax.serialization.to_bytes(state))
    found = convert.load(tmp_path / "x.msgpack")
    assert found.optimizer is None
    assert "not AdamW's" in found.notes[0]


def test_an_nnx_optimizer_is_read_with_its_model(tmp_path: Path) -> None:
    module = backends.load("jax").build(CLASSIFIER)
    optimizer = nnx.Optimizer(module, optax.adamw(1e-3), wrt=nnx.Param)
    optimizer.update(module, nnx.state(module, nnx.Param))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "x", nnx.state((module, optimizer)))
    found = convert.load(tmp_path / "x")
    assert found.optimizer.t == 1
    assert np.array_equal(found.optimizer.mu["head.weight"], optimizer.opt_state[0].mu["head"]["weight"][...].T)
    assert_equal(found.arrays, backends.load("jax").get_arrays(module), "params")
