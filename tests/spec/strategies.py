"""Random models, small and of any shape that a spec allows."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

import spec
from spec.geometry import ROUNDINGS

cheap = settings(max_examples=20 * settings.default.max_examples)
"""A spec takes microseconds, a compiled model seconds: try many more."""


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    """The fields that shape an encoder."""
    stages = draw(st.integers(1, 5), label="stages")
    return {
        "depths": tuple(draw(st.lists(st.integers(1, 5), min_size=stages, max_size=stages), label="depths")),
        "dims": tuple(draw(st.lists(st.integers(1, 40), min_size=stages, max_size=stages), label="dims")),
        "in_chans": draw(st.integers(1, 12), label="in_chans"),
        "stem_stride": draw(st.integers(1, 5), label="stem_stride"),
        "norm_eps": draw(st.sampled_from((1e-6, 1e-5)), label="norm_eps"),
        "dwconv_bias": draw(st.booleans(), label="dwconv_bias"),
        "block": draw(st.sampled_from(("v1", "v2")), label="block"),
    }


@st.composite
def classifiers(draw: st.DrawFn) -> spec.Classifier:
    return spec.classifier(**draw(shapes()), num_classes=draw(st.integers(0, 20), label="num_classes"))


@st.composite
def backbones(draw: st.DrawFn) -> spec.Backbone:
    return spec.encoder(**draw(shapes()), out_norm=draw(st.booleans(), label="out_norm"))


@st.composite
def autoencoders(draw: st.DrawFn) -> spec.FCMAE:
    fields = draw(shapes())
    patch = fields["stem_stride"] * 2 ** (len(fields["dims"]) - 1)
    rows, columns = draw(st.tuples(st.integers(1, 9), st.integers(2, 9)), label="grid")
    kept = draw(st.integers(1, rows * columns - 1), label="visible")
    rounding = draw(st.sampled_from(ROUNDINGS), label="mask_rounding")
    return spec.fcmae(
        **fields,
        image_size=(rows * patch, columns * patch),
        mask_ratio=spec.ratio_for(kept, rows * columns, rounding),
        mask_rounding=rounding,
        decoder_depth=draw(st.integers(0, 3), label="decoder_depth"),
        decoder_dim=draw(st.integers(1, 20), label="decoder_dim"),
        norm_target=False,
    )


models = classifiers() | autoencoders() | backbones()
