"""A folder as written by transformers' save_pretrained: config.json, and one or several files of arrays."""

import json
from pathlib import Path
from typing import Any

from convert.arrays import Entries
from convert.containers import safetensors
from convert.content import Content
from convert.errors import ConvertError
from convert.formats.huggingface import FAMILIES
from spec import EPS, Backbone, Classifier, Model

CONFIG, WHOLE, PICKLED = "config.json", "model.safetensors", "pytorch_model.bin"
FILES = (WHOLE, f"{WHOLE}.index.json", PICKLED, f"{PICKLED}.index.json")
"""Where the arrays are, in the order of preference."""

UNNAMED = "LABEL_"
"""What transformers calls the classes, with their number, where it knows no names."""


def read(path: Path, weights_only: bool = False) -> Content:
    """The arrays of the folder; ConvertError when the config is of another architecture."""
    config = config_in(path)
    if config.get("model_type") not in FAMILIES.values():
        known = " or ".join(map(repr, FAMILIES.values()))
        raise ConvertError(f"{path}: its config.json says model_type {config.get('model_type')!r}, not {known}")
    content = arrays(path)
    names = _names(config.get("id2label"))
    if names:
        content.meta["classes"] = names
    eps = config.get("layer_norm_eps", 1e-12)
    if eps != EPS:
        content.notes.append(f"config.json has layer_norm_eps {eps} for the last norm; {EPS} is used")
    return content


def write(path: Path, content: Content) -> None:
    """Write the arrays, and the config from which transformers builds the same model."""
    if content.model is None:
        raise AssertionError("a config needs a model")
    path.mkdir()
    safetensors.write(path / WHOLE, content)
    config = config_of(content.model, content.classes)
    (path / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def config_in(path: Path) -> dict[str, Any]:
    """The config of a folder."""
    config = json.loads((path / CONFIG).read_text())
    if not isinstance(config, dict):
        raise ConvertError(f"{path / CONFIG}: a {type(config).__name__}, not an object")
    return config


def config_of(model: Model, classes: list[str]) -> dict[str, Any]:
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
        "hidden_act": "gelu",
        "layer_norm_eps": EPS,
        "drop_path_rate": encoder.drop_path,
        "image_size": 224,
    }
    if isinstance(model, Backbone) and model.out_norm:
        config["out_features"] = [f"stage{i + 1}" for i in range(len(encoder.depths))]
    if isinstance(model, Classifier) and model.num_classes:
        names = classes or [f"{UNNAMED}{i}" for i in range(model.num_classes)]
        config["id2label"] = {str(i): name for i, name in enumerate(names)}
        config["label2id"] = {name: i for i, name in enumerate(names)}
    return config


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
