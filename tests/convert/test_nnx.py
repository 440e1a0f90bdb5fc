"""Checkpoints that JAX users make of our module: Orbax of its state, of the pure dict, in steps; msgpack in chunks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.serialization
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import backends
import convert
import spec
from convert import ConvertError
from tests.convert.samples import assert_equal, filled

CLASSIFIER = spec.classifier(depths=(1,), dims=(6,), num_classes=3, stem_stride=2)
AUTOENCODER = spec.fcmae(depths=(1,), dims=(6,), stem_stride=2, image_size=8, decoder_dim=7)
VIEWS: dict[str, Callable[[Any], Any]] = {"state": lambda state: state, "pure dict": nnx.to_pure_dict}


def state_of(model: spec.Model, seed: int = 0) -> Any:
    jax = backends.load("jax")
    module = jax.build(model)
    jax.set_arrays(module, filled(model, seed=seed))
    return nnx.state(module)


def pure_of(model: spec.Model, seed: int = 0) -> Any:
    return nnx.to_pure_dict(state_of(model, seed))


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
@pytest.mark.parametrize("model", [CLASSIFIER, AUTOENCODER], ids=["classifier", "autoencoder"])
def test_orbax_of_a_module(model: spec.Model, view: Callable[[Any], Any], tmp_path: Path) -> None:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "x", view(state_of(model)))
    found = convert.load(tmp_path / "x")
    assert found.meta["format"] == "nnx"
    assert_equal(found.arrays, filled(model), "nnx")


def test_the_newest_step_of_a_manager_is_read_and_named(tmp_path: Path) -> None:
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        for step in (3, 10):
            manager.save(step, args=ocp.args.StandardSave(pure_of(CLASSIFIER, seed=step)))
    found = convert.load(tmp_path / "run")
    assert_equal(found.arrays, filled(CLASSIFIER, seed=10), "newest")
    assert found.notes == ["read: 10, the newest of 2 steps"]
    assert_equal(convert.load(tmp_path / "run" / "3").arrays, filled(CLASSIFIER, seed=3), "a step by its path")


def test_a_step_of_several_items(tmp_path: Path) -> None:
    items = ocp.args.Composite(state=ocp.args.StandardSave(pure_of(CLASSIFIER)), extra=ocp.args.JsonSave({"epoch": 1}))
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(5, args=items)
    assert_equal(convert.load(tmp_path / "run").arrays, filled(CLASSIFIER), "state")


def test_several_trees_of_unusual_names_are_chosen_by_path(tmp_path: Path) -> None:
    trees = {f"net{seed}": ocp.args.StandardSave(pure_of(CLASSIFIER, seed)) for seed in (1, 2)}
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(5, args=ocp.args.Composite(**trees))
    with pytest.raises(ConvertError, match="holds several trees, net1, net2; give the path of one of them"):
        convert.load(tmp_path / "run")
    assert_equal(convert.load(tmp_path / "run" / "5" / "net2").arrays, filled(CLASSIFIER, seed=2), "by path")


def test_an_nnx_tree_is_written_with_the_names_and_shapes_of_the_module(tmp_path: Path) -> None:
    arrays = filled(CLASSIFIER)
    convert.save(convert.Checkpoint(CLASSIFIER, arrays), tmp_path / "x.msgpack", format="nnx")
    tree = flax.serialization.msgpack_restore((tmp_path / "x.msgpack").read_bytes())
    assert tree["head"]["weight"].shape == (6, 3)
    kernel = tree["stages"]["0"]["0"]["dwconv"]["weight"]
    assert np.array_equal(kernel[:, :, 0, 4], arrays["stages.0.0.dwconv.weight"][4, 0])


def test_msgpack_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 100)
    arrays = filled(CLASSIFIER)
    convert.save(convert.Checkpoint(CLASSIFIER, arrays), tmp_path / "x.msgpack", format="flax")
    tree = flax.serialization.msgpack_restore((tmp_path / "x.msgpack").read_bytes())
    data = flax.serialization.msgpack_serialize({"params": tree})
    assert b"__msgpack_chunked_array__" in data
    (tmp_path / "y.msgpack").write_bytes(data)
    assert_equal(convert.load(tmp_path / "y.msgpack").arrays, arrays, "chunks")


def test_chunks_that_do_not_fill_their_array_are_refused(tmp_path: Path) -> None:
    values = np.zeros(4, np.float32)
    tree = {"x": {"__msgpack_chunked_array__": True, "shape": {"0": 5}, "chunks": {"0": values}}}
    (tmp_path / "x.msgpack").write_bytes(flax.serialization.msgpack_serialize(tree))
    with pytest.raises(ConvertError, match=r"x claims \(5,\), which its 1 chunks do not fill"):
        convert.load(tmp_path / "x.msgpack")
