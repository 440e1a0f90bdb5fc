"""The tables of formats: total, invertible, and right about layouts."""

from itertools import product

import numpy as np
import pytest
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st

import spec
from convert import ConvertError, formats, load, models, naming
from convert.arrays import Arrays, entries_of
from convert.rules import Place, shape_of, to_format
from parity_tests import golden
from tests.convert.samples import KINDS, assert_equal, checkpoints, filled, recognised

PAIRS = [(kind, *pair) for kind, names in KINDS.items() for pair in product(names, names)]


@pytest.mark.parametrize(("kind", "first", "second"), PAIRS)
@given(data=st.data())
def test_every_pair_of_formats_round_trips(kind: str, first: str, second: str, data: st.DataObject) -> None:
    original = data.draw(checkpoints(kind, (first, second)))
    entries = entries_of(original.arrays)
    for name in (first, second):
        format = formats.named(name)
        renamed = naming.foreign(format, original.model, entries)
        assert len(renamed) == len(entries)
        entries = naming.canonical(format, original.model, renamed)
    assert_equal(Arrays(entries), original.arrays, f"{first}, {second}")


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in KINDS.items() for name in names])
@given(data=st.data())
def test_a_format_is_recognised_by_its_names(kind: str, name: str, data: st.DataObject) -> None:
    original = data.draw(checkpoints(kind, (name,)))
    renamed = naming.foreign(formats.named(name), original.model, entries_of(original.arrays))
    found = formats.recognise({key: entry.shape for key, entry in renamed.items()})
    assert found.name == recognised(name, original.model)


@given(data=st.data(), name=st.sampled_from(KINDS["autoencoder"]))
def test_a_model_is_inferred_from_names_and_shapes(data: st.DataObject, name: str) -> None:
    original = data.draw(checkpoints("autoencoder", (name,)))
    format = formats.named(name)
    renamed = naming.foreign(format, original.model, entries_of(original.arrays))
    paths = naming.paths(format, renamed)
    shapes = {paths[name]: entry.shape for name, entry in renamed.items()}
    hints = {
        "image_size": original.model.image_size,
        "norm_target": False,
        "grn_scope": original.model.encoder.grn_scope,
        "norm_eps": original.model.encoder.norm_eps,
    }
    assert models.infer(format, shapes, hints) == original.model


@pytest.mark.parametrize("kind", ["encoder", "features", "backbone"])
@given(data=st.data())
def test_a_model_without_a_head_is_inferred_from_names_and_shapes(kind: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(KINDS[kind]))
    original, format = data.draw(checkpoints(kind, (name,))), formats.named(name)
    renamed = naming.foreign(format, original.model, entries_of(original.arrays))
    paths = naming.paths(format, renamed)
    shapes = {paths[name]: entry.shape for name, entry in renamed.items()}
    hints = {name: getattr(original.model.encoder, name) for name in ("grn_scope", "norm_eps")}
    assert models.infer(format, shapes, hints) == original.model


@pytest.mark.parametrize(
    ("axes", "pattern", "shape"),
    [
        ("(kw kh) in out", "o i kh kw -> (kw kh) i o", (8, 3, 2, 2)),
        ("(kw kh) (ch one)", "c 1 kh kw -> (kw kh) c", (5, 1, 7, 7)),
        ("kh kw in out", "o i kh kw -> kh kw i o", (8, 3, 4, 4)),
        ("kh kw one ch", "c 1 kh kw -> kh kw 1 c", (5, 1, 7, 7)),
        ("in out", "o i -> i o", (6, 5)),
        ("out in 1 1", "o i -> o i 1 1", (6, 5)),
        ("1 1 1 ch", "c -> 1 1 1 c", (6,)),
    ],
)
def test_axes_mean_what_einops_means(axes: str, pattern: str, shape: tuple[int, ...]) -> None:
    named = {1: ("ch",), 2: ("out", "in"), 4: ("out", "in", "kh", "kw")}[len(shape)]
    named = ("ch", "one", "kh", "kw") if shape[1:2] == (1,) else named
    param = spec.Param(named, shape, 0.0, True, {"single": 0, "group": 0})
    values = np.random.default_rng(0).normal(size=shape)
    place = Place("x", axes, shape_of(axes, dict(zip(named, shape, strict=True))))
    entry = entries_of({"x": values})["x"]
    assert np.array_equal(to_format(entry, place, param).read(), rearrange(values, pattern))


def test_published_files_are_read_as_an_independent_reader_reads_them() -> None:
    for file, expected in (("official_fcmae.pth", golden.fcmae(1)), ("official_classifier.pth", golden.classifier())):
        found = load(golden.FOLDER / file)
        assert found.model == expected.model
        assert_equal(found.arrays, expected.arrays, file)


@pytest.mark.parametrize("rank", [(8,), (1, 8), (1, 8, 1, 1), (1, 1, 1, 8)])
def test_the_rank_of_a_vector_does_not_matter(rank: tuple[int, ...]) -> None:
    model = spec.classifier(depths=(1,), dims=(2,), stem_stride=2)
    arrays = filled(model)
    renamed = {name: entry.read() for name, entry in naming.foreign(formats.DENSE, model, entries_of(arrays)).items()}
    renamed["stages.0.0.grn.gamma"] = arrays["stages.0.0.grn.gamma"].reshape(rank)
    assert_equal(Arrays(naming.canonical(formats.DENSE, model, entries_of(renamed))), arrays, "GRN")


def test_a_shape_that_does_not_fit_is_refused_with_both_shapes() -> None:
    model = spec.classifier(depths=(1,), dims=(2,), stem_stride=2)
    arrays = filled(model)
    arrays["stages.0.0.pwconv1.weight"] = arrays["stages.0.0.pwconv1.weight"].T
    with pytest.raises(ConvertError, match=r"pwconv1.weight: the file has \(2, 8\), the spec says \(8, 2\)"):
        naming.canonical(formats.DENSE, model, entries_of(arrays))


def test_conv_mlps_are_written_for_the_sizes_that_timm_builds_so() -> None:
    for name, size in spec.PRESETS.items():
        model = spec.classifier(name)
        place = formats.TIMM.place(
            "stages.0.0.pwconv1.weight", spec.parameters(model)["stages.0.0.pwconv1.weight"], model, True
        )
        assert len(place.shape) == (4 if name.split("_")[1] in ("atto", "femto", "pico", "nano") else 2), size
