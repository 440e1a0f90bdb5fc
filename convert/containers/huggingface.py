"""A folder as transformers keeps it on the hub: config.json, files of arrays, image processor, model card."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convert.arrays import Entries
from convert.containers import safetensors
from convert.content import Content
from convert.errors import ConvertError
from convert.formats.huggingface import DINOV3, FAMILIES
from convert.preparation import CROP_PCT, IMAGENET, PHOTOGRAPHS, image_size, recorded, values
from spec import EPS, Backbone, Classifier, Model

CONFIG, WHOLE, PICKLED = "config.json", "model.safetensors", "pytorch_model.bin"
PROCESSOR, CARD = "preprocessor_config.json", "README.md"
FILES = (WHOLE, f"{WHOLE}.index.json", PICKLED, f"{PICKLED}.index.json")
"""Where the arrays are, in the order of preference."""

IMAGE_SIZE = 224
GELU = "gelu"
BICUBIC, IN_UNITS = 3, 1 / 255
"""Of image processors: Pillow's number of the filter, and the factor from pixels to 0..1."""

UNNAMED = "LABEL_"
"""What transformers calls the classes, with their number, where it knows no names."""


def read(path: Path, weights_only: bool = False) -> Content:
    """The arrays of the folder; ConvertError when the config is of another architecture."""
    config = config_in(path)
    families = (*FAMILIES.values(), DINOV3)
    if config.get("model_type") not in families:
        known = " or ".join(map(repr, families))
        raise ConvertError(f"{path}: its config.json says model_type {config.get('model_type')!r}, not {known}")
    if config.get("hidden_act", GELU) != GELU:
        raise ConvertError(
            f"{path}: its config.json says hidden_act {config['hidden_act']!r}; the model has {GELU!r} only"
        )
    content = arrays(path)
    names = _names(config.get("id2label"))
    if names:
        content.meta["classes"] = names
    dinov3 = config["model_type"] == DINOV3
    eps = config.get("layer_norm_eps", EPS if dinov3 else 1e-12)
    if dinov3:
        content.fields["norm_eps"] = eps
    elif eps != EPS:
        content.notes.append(f"config.json has layer_norm_eps {eps} for the last norm; {EPS} is used")
    _read_processor(path, content)
    return content


def write(path: Path, content: Content) -> None:
    """Write the arrays, the config from which transformers builds the same model, its image processor, and a card."""
    from convert.card import card

    assert content.model is not None, "a config needs a model"
    dinov3 = content.format == "dinov3-hf"
    (_check_dinov3 if dinov3 else _check_as_built)(content.model)
    path.mkdir()
    safetensors.write(path / WHOLE, content)
    size = image_size(recorded(content.meta)) or (IMAGE_SIZE, IMAGE_SIZE)
    config = config_of(content.model, content.classes, size)
    write_json(path / CONFIG, _of_dinov3(config, content.model) if dinov3 else config)
    processor = processor_of(content, content.model, size)
    if processor is not None:
        write_json(path / PROCESSOR, processor)
    (path / CARD).write_text(card(path.name, content, content.model), encoding="utf-8")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write an object as an indented file."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _check_as_built(model: Model) -> None:
    """ConvertError for a model whose norms or depthwise convolutions transformers does not build."""
    encoder = model.encoder
    check_scope(model, "transformers")
    if encoder.norm_eps != EPS or not encoder.dwconv_bias:
        raise ConvertError(
            f"transformers builds LayerNorms with epsilon {EPS:g} and depthwise convolutions with a bias; this model"
            f" has norm_eps {encoder.norm_eps:g} and dwconv_bias {encoder.dwconv_bias}: write a .safetensors file"
        )


def check_scope(model: Model, program: str) -> None:
    """ConvertError for a model whose GRN a program does not build."""
    if model.encoder.grn_scope != "image":
        raise ConvertError(
            f"{program} builds GRN over the image; this model has grn_scope {model.encoder.grn_scope!r}:"
            " write a .safetensors file"
        )


def _check_dinov3(model: Model) -> None:
    """The same for DINOv3's class, whose config has the epsilon of every norm."""
    encoder = model.encoder
    if encoder.stem_stride != 4 or not encoder.dwconv_bias:
        raise ConvertError(
            f"transformers builds DINOv3's ConvNeXt with a stem of stride 4 and depthwise convolutions with a bias;"
            f" this model has stride {encoder.stem_stride} and dwconv_bias {encoder.dwconv_bias}:"
            " write a .safetensors file"
        )


def _of_dinov3(config: dict[str, Any], model: Model) -> dict[str, Any]:
    """The config of DINOv3's class, from that of ConvNeXt's."""
    backbone = isinstance(model, Backbone)
    return {name: value for name, value in config.items() if name not in ("patch_size", "num_stages")} | {
        "architectures": ["DINOv3ConvNextBackbone" if backbone else "DINOv3ConvNextModel"],
        "model_type": DINOV3,
        "layer_norm_eps": model.encoder.norm_eps,
        **({"out_features": _stages(model)} if backbone else {}),
    }


def _stages(model: Model) -> list[str]:
    """transformers' names of the stages, whose feature maps a backbone gives."""
    return [f"stage{i + 1}" for i in range(len(model.encoder.depths))]


def config_in(path: Path) -> dict[str, Any]:
    """The config of a folder."""
    config = json.loads((path / CONFIG).read_text())
    if not isinstance(config, dict):
        raise ConvertError(f"{path / CONFIG}: a {type(config).__name__}, not an object")
    return config


def config_of(model: Model, classes: list[str], size: tuple[int, int]) -> dict[str, Any]:
    """transformers' config of a model. Its layer_norm_eps, 1e-12 by default, is that of the last norm only."""
    encoder = model.encoder
    config: dict[str, Any] = {
        "architectures": [_architecture(model)],
        "model_type": FAMILIES[encoder.block],
        "num_channels": encoder.in_chans,
        "patch_size": encoder.stem_stride,
        "num_stages": len(encoder.depths),
        "depths": list(encoder.depths),
        "hidden_sizes": list(encoder.dims),
        "hidden_act": GELU,
        "layer_norm_eps": EPS,
        "drop_path_rate": encoder.drop_path,
        "image_size": size[0] if size[0] == size[1] else list(size),
    }
    if isinstance(model, Backbone) and model.out_norm:
        config["out_features"] = _stages(model)
    if isinstance(model, Classifier) and model.num_classes:
        names = classes or [f"{UNNAMED}{i}" for i in range(model.num_classes)]
        config["id2label"] = {str(i): name for i, name in enumerate(names)}
        config["label2id"] = {name: i for i, name in enumerate(names)}
    return config


def processor_of(content: Content, model: Model, size: tuple[int, int]) -> dict[str, Any] | None:
    """The image processor that prepares images as the evaluation does, or None, with a note, where there is none."""
    if model.encoder.in_chans != 3 or size[0] != size[1]:
        content.notes.append(
            f"no {PROCESSOR}: transformers' image processors are for square RGB images, these have"
            f" {model.encoder.in_chans} channels and {size[0]} x {size[1]} px"
        )
        return None
    if values(content.meta) != PHOTOGRAPHS:
        content.notes.append(f"no {PROCESSOR}: those of transformers are for {PHOTOGRAPHS}, not {values(content.meta)}")
        return None
    images = recorded(content.meta)
    if not {"mean", "std", "input_size"} <= images.keys():
        content.notes.append(f"{PROCESSOR} has ImageNet's mean and std, {size[0]} px: the checkpoint records no others")
    return {
        "image_processor_type": "ConvNextImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size[0]},
        "crop_pct": images.get("crop_pct", CROP_PCT),
        "resample": BICUBIC,
        "do_rescale": True,
        "rescale_factor": IN_UNITS,
        "do_normalize": True,
        **{f"image_{name}": each_channel(images.get(name, IMAGENET[name])) for name in ("mean", "std")},
    }


def each_channel(values: Sequence[float], channels: int = 3) -> list[float]:
    """One value per channel, of one for all or one each."""
    return list(values) * (channels if len(values) == 1 else 1)


def _read_processor(path: Path, content: Content) -> None:
    """Keep how the folder's image processor prepares images, and note what evaluation does in another way."""
    if not (path / PROCESSOR).is_file():
        return
    found = json.loads((path / PROCESSOR).read_text(encoding="utf-8"))
    kind = str(found.get("image_processor_type") or found.get("feature_extractor_type"))
    same = {"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": BICUBIC}
    odd = [f"{name} {found[name]}" for name, value in same.items() if found.get(name, value) != value]
    factor = found.get("rescale_factor", IN_UNITS)
    if not (isinstance(factor, float) and math.isclose(factor, IN_UNITS)):
        content.notes.append(f"{PROCESSOR}: not used: its mean and std are for rescale_factor {factor}, not 1/255")
        return
    if odd or not kind.startswith("ConvNext"):
        content.notes.append(f"{PROCESSOR}: only its mean and std are used: it is {', '.join([kind, *odd])}")
    images = {name: found[f"image_{name}"] for name in ("mean", "std") if f"image_{name}" in found}
    edge = found.get("size")
    edge = edge.get("shortest_edge") if isinstance(edge, dict) else edge
    if not odd and kind.startswith("ConvNext") and isinstance(edge, int):
        images |= {"input_size": (edge,), "crop_pct": CROP_PCT if found.get("crop_pct") is None else found["crop_pct"]}
    content.meta["images"] = images


def _architecture(model: Model) -> str:
    """The class of transformers that holds the model's arrays."""
    family = {"v1": "ConvNext", "v2": "ConvNextV2"}[model.encoder.block]
    if isinstance(model, Classifier) and model.num_classes:
        return f"{family}ForImageClassification"
    return f"{family}Backbone" if isinstance(model, Backbone) and model.out_norm else f"{family}Model"


def _names(labels: Any) -> list[str]:
    """The names of the classes by number; empty where there are none, or only transformers' LABEL_0, LABEL_1, ..."""
    if not isinstance(labels, dict) or sorted(labels) != sorted(map(str, range(len(labels)))):
        return []
    names = [str(labels[str(i)]) for i in range(len(labels))]
    return [] if names == [f"{UNNAMED}{i}" for i in range(len(names))] else names


def arrays(path: Path) -> Content:
    """The arrays of the first of the usual files; an index names several."""
    for name in FILES:
        if (path / name).is_file():
            return _shards(path, path / name) if name.endswith(".json") else _file(path / name)
    raise ConvertError(f"{path}: a config.json, but none of {', '.join(FILES)} beside it")


def _file(file: Path) -> Content:
    if file.suffix == ".safetensors":
        return safetensors.read(file)
    from convert.containers import pth

    return pth.read(file)


def _shards(path: Path, index: Path) -> Content:
    """The arrays of all files that the index lists; each file must lie in the folder itself."""
    files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    found: Entries = {}
    for file in files:
        if Path(file).name != file:
            raise ConvertError(f"{path}: its index names {file!r}, which is outside the folder")
        entries = _file(path / file).params
        twice = sorted(found.keys() & entries.keys())
        if twice:
            raise ConvertError(f"{path}: {twice[0]} is in {file} and in another file too")
        found |= entries
    return Content(found)
