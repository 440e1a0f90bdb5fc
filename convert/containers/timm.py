"""A folder as timm keeps it on the hub: config.json with the architecture, and the weights."""

from pathlib import Path
from typing import Any

from convert.containers import huggingface, safetensors
from convert.containers.huggingface import IMAGE_SIZE
from convert.content import Content
from convert.errors import ConvertError
from convert.preparation import CROP_PCT, RESIZE_ONLY, image_size, recorded
from spec import EPS, Model

FAMILIES = {"v1": "convnext_", "v2": "convnextv2_"}
"""Kind of block -> what the names of timm's architectures begin with."""

STAGES = 4

MODEL_ARGS = (
    *("depths", "dims", "patch_size", "in_chans", "num_classes", "use_grn", "ls_init_value", "conv_mlp", "conv_bias"),
    *("norm_eps", "head_init_scale", "drop_rate", "drop_path_rate"),
)
"""timm's arguments that the shapes determine, norm_eps, and those of training."""

FIXED_ARGS = {"global_pool": "avg", "head_norm_first": False, "output_stride": 32, "act_layer": "gelu"}
"""Those for which the model has one value."""


def read(path: Path, weights_only: bool = False) -> Content:
    """The arrays of the folder; ConvertError when the config is of another architecture."""
    config = huggingface.config_in(path)
    architecture = config.get("architecture")
    if not str(architecture).startswith(tuple(FAMILIES.values())):
        known = " or ".join(f"{family}..." for family in FAMILIES.values())
        raise ConvertError(f"{path}: its config.json says architecture {architecture!r}, not {known}")
    content = huggingface.arrays(path)
    pretrained, args = config.get("pretrained_cfg") or config, config.get("model_args") or {}
    unknown = {name: args[name] for name in args.keys() - MODEL_ARGS if args[name] != FIXED_ARGS.get(name, ())}
    if unknown:
        raise ConvertError(f"{path}: its config.json has model_args {unknown}, which the model does not have")
    names = config.get("label_names") or pretrained.get("label_names")
    if isinstance(names, list):
        content.meta["classes"] = [str(name) for name in names]
    _read_preparation(pretrained, content)
    eps = args.get("norm_eps")
    content.fields |= {} if eps is None else {"norm_eps": eps}
    return content


def write(path: Path, content: Content) -> None:
    """Write the arrays, and the config from which timm.create_model("local-dir:...") builds the same model."""
    assert content.model is not None, "a config needs a model"
    encoder = content.model.encoder
    if len(encoder.depths) != STAGES or encoder.stem_stride == 2:
        raise ConvertError(
            f"timm builds models of four stages whose stem has not stride 2; this one has {len(encoder.depths)} stages"
            f" and stride {encoder.stem_stride}: write a .safetensors file"
        )
    huggingface.check_scope(content.model, "timm")
    if not encoder.dwconv_bias:
        raise ConvertError(
            "timm builds depthwise convolutions with a bias; this model has dwconv_bias False:"
            " write a .safetensors file"
        )
    path.mkdir()
    safetensors.write(path / huggingface.WHOLE, content)
    headless = "head.fc.weight" not in content.params
    huggingface.write_json(path / huggingface.CONFIG, _config(content, content.model, headless))


def _read_preparation(config: dict[str, Any], content: Content) -> None:
    """Keep how timm prepares images, and note what evaluation does in another way."""
    if not {"input_size", "mean", "std"} <= config.keys():
        return
    size = tuple(config["input_size"][1:])
    for name, ours in (("interpolation", "bicubic"), ("crop_mode", _crop_mode(size))):
        if config.get(name, ours) != ours:
            content.notes.append(f"its {name} is {config[name]}; evaluation at {size[0]} x {size[1]} px is by {ours}")
    known = {name: config[name] for name in ("mean", "std", "crop_pct") if name in config}
    content.meta["images"] = {"input_size": size[:1] if size[0] == size[1] else size, **known}


def _crop_mode(size: tuple[int, ...]) -> str:
    """timm's word for what evaluation does with an image before it has this size."""
    return "squash" if min(size) >= RESIZE_ONLY else "center"


def _preparation(content: Content, channels: int) -> dict[str, Any]:
    """timm's fields of how images are prepared, as far as the checkpoint records it."""
    images = recorded(content.meta)
    size = image_size(images) or (IMAGE_SIZE, IMAGE_SIZE)
    mode = _crop_mode(size)
    fields: dict[str, Any] = {
        "input_size": [channels, *size],
        "interpolation": "bicubic",
        "crop_mode": mode,
        "crop_pct": 1.0 if mode == "squash" else images.get("crop_pct", CROP_PCT),
    }
    return fields | {n: huggingface.each_channel(images[n], channels) for n in ("mean", "std") if n in images}


def _config(content: Content, model: Model, headless: bool) -> dict[str, Any]:
    """timm's config of a model; model_args are what its architecture does not say."""
    encoder = model.encoder
    preset = encoder.preset
    classes = 0 if headless else getattr(model, "num_classes", 0)
    args: dict[str, Any] = {} if preset else {"depths": list(encoder.depths), "dims": list(encoder.dims)}
    usual = {"patch_size": 4, "norm_eps": EPS, "in_chans": 3}
    own = {"patch_size": encoder.stem_stride, "norm_eps": encoder.norm_eps, "in_chans": encoder.in_chans}
    args |= {name: value for name, value in own.items() if value != usual[name]}
    config: dict[str, Any] = {
        "architecture": preset or f"{FAMILIES[encoder.block]}tiny",
        "num_classes": classes,
        "num_features": encoder.dims[-1],
        "pretrained_cfg": {
            **_preparation(content, encoder.in_chans),
            "num_classes": classes,
            "first_conv": "stem.0",
            "classifier": "head.fc",
        },
    }
    return (
        config | ({"model_args": args} if args else {}) | ({"label_names": content.classes} if content.classes else {})
    )
