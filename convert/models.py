"""The model of a checkpoint, inferred from its shapes, and from hints where shapes do not determine it."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import spec
from convert.errors import ConvertError
from convert.rules import Format
from spec import EPS, Backbone, Classifier, Model, SpecError

HEAD = ("norm", "head")
DECODER = ("proj", "mask_token", "decoder", "pred")
MOST_BLOCKS = 10_000  # that a file may claim: building a larger spec would take minutes
IMAGE_SIZE = 224
"""Pixels, where a file does not say: the models are convolutional and run at other sizes."""


def describe(model: Model) -> dict[str, Any]:
    """The model as nested dicts that JSON can hold, as in the manifest of a run; `build` is the inverse."""
    return dict(json.loads(json.dumps(asdict(model))))


def build(fields: Mapping[str, Any]) -> Model:
    """The model that `describe` described; ConvertError when there can be no such model."""
    try:
        flat = {**fields["encoder"], **fields}
        del flat["encoder"]
        if sum(flat["depths"]) + flat.get("decoder_depth", 0) > MOST_BLOCKS:
            raise SpecError(f"depths {flat['depths']} are more than {MOST_BLOCKS} blocks")
        if "num_classes" in flat:
            return spec.classifier(**flat)
        if "out_norm" in flat:
            return spec.encoder(**flat)
        del flat["drop_path"]  # an FCMAE has none
        return spec.fcmae(**flat)
    except (SpecError, KeyError, TypeError) as error:
        raise ConvertError(f"model: {error}") from error


def infer(format: Format, shapes: Mapping[str, tuple[int, ...]], hints: Mapping[str, Any]) -> Model:
    """The model whose arrays, by bare path, have these shapes in `format`.

    hints: image_size, mask_ratio, norm_target, grn_scope, norm_eps and drop_path, which shapes do not determine.
    """

    def shape(path: str) -> tuple[int, ...]:
        if path not in shapes:
            raise ConvertError(f"{path} is missing, so the model is unknown: an incomplete file, or another model")
        return shapes[path]

    stem = "downsample_layers.0.0.weight"
    order = (format.axes(stem) or "out in kh kw").split()
    if len(shape(stem)) != len(order):
        raise ConvertError(f"{stem}: {shape(stem)} is not the shape of a convolution, ({', '.join(order)})")
    sides = dict(zip(order, shape(stem), strict=True))
    depths = tuple(_count(shapes, f"stages.{stage}") for stage in range(_count(shapes, "stages")))
    encoder = {
        "depths": depths,
        "dims": tuple(math.prod(shape(f"stages.{stage}.0.norm.weight")) for stage in range(len(depths))),
        "in_chans": sides["in"],
        "stem_stride": sides["kh"],
        "block": "v1" if "stages.0.0.gamma" in shapes else "v2",
        "grn_scope": hints.get("grn_scope", "image"),
        "norm_eps": hints.get("norm_eps", EPS),
        "dwconv_bias": "stages.0.0.dwconv.bias" in shapes,
        "drop_path": hints.get("drop_path", 0.0),
    }
    parts = {path.split(".")[0] for path in shapes}
    if not parts & {*DECODER, *HEAD}:
        return build({"encoder": encoder, "out_norm": any(re.fullmatch(r"norm\d+", part) for part in parts)})
    if not parts & {*DECODER}:
        return build({"encoder": encoder, "num_classes": math.prod(shape("head.bias")) if "head" in parts else 0})
    patch = sides["kh"] * 2 ** (len(depths) - 1)
    fields = {
        "encoder": encoder,
        "image_size": hints.get("image_size", max(2, round(IMAGE_SIZE / max(patch, 1))) * patch),
        "mask_ratio": hints.get("mask_ratio", 0.6),
        "norm_target": hints.get("norm_target", patch**2 * sides["in"] > 1),
        "decoder_depth": _count(shapes, "decoder"),
        "decoder_dim": math.prod(shape("mask_token")),
    }
    return build(fields)


def without_missing(model: Model, paths: Iterable[str]) -> Model:
    """The model that a file holds, where it records a classifier and lacks the head, or norm and head."""
    parts = {path.split(".")[0] for path in paths}
    if not isinstance(model, Classifier) or "head" in parts:
        return model
    return Classifier(model.encoder, 0) if "norm" in parts else Backbone(model.encoder)


def _count(paths: Iterable[str], prefix: str) -> int:
    """The number of children under a path; ConvertError unless they are numbered from 0 without a gap."""
    under = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    found = {int(match[1]) for match in map(under.match, paths) if match}
    gaps = sorted(set(range(max(found, default=-1) + 1)) - found)
    if gaps:
        raise ConvertError(
            f"{prefix}.{gaps[0]} is missing, though there is {prefix}.{max(found)}; the file is incomplete"
        )
    return len(found)
