"""The published recipes, and those for the digits, as plain data: values and where they are printed.

The tables have one row per model size, as in the paper's appendix. A recipe is a list of layers; a
later layer overrides an earlier one. `resolve.py` puts the defaults before them and the flags after.
"""

from typing import Any, NamedTuple


class Layer(NamedTuple):
    """Values of flags, and their source in words."""

    source: str
    values: dict[str, Any]


TASKS: dict[str, Layer] = {
    "pretrain": Layer("default of the released pre-training script", {}),
    "finetune": Layer(
        "default of the released fine-tuning script",
        {
            **{"epochs": 100, "warmup_epochs": 20.0, "blr": 5e-4, "min_lr": 1e-6, "crop_scale": (0.08, 1.0)},
            "opt_betas": (0.9, 0.999),
        },
    ),
    **{task: Layer("default", {}) for task in ("eval", "predict", "embed", "probe", "reconstruct")},
    "analyse": Layer("number of images in the paper's figure", {"num_images": 1000}),
}
"""Task -> its changes to the defaults in `groups.py`."""

SIZES = ("atto", "femto", "pico", "nano", "tiny", "base", "large", "huge")
COMMANDS = ("atto", "tiny", "base")
"""Sizes whose fine-tuning command is released; its values are those of the paper."""

_SCHEDULE = ("blr", "weight_decay", "layer_decay", "layer_decay_type", "warmup_epochs", "epochs")
_STRENGTH = ("mixup", "cutmix", "smoothing", "drop_path")

FINETUNE = {
    "atto": (2e-4, 0.3, 0.9, "single", 0.0, 600, 0.0, 0.0, 0.2, 0.1),
    "femto": (2e-4, 0.05, 0.9, "single", 0.0, 600, 0.3, 0.3, 0.2, 0.0),
    "pico": (2e-4, 0.3, 0.9, "single", 0.0, 600, 0.3, 0.3, 0.2, 0.0),
    "nano": (2e-4, 0.3, 0.9, "single", 0.0, 600, 0.5, 0.5, 0.2, 0.1),
    "tiny": (8e-4, 0.05, 0.9, "single", 40.0, 300, 0.8, 1.0, 0.1, 0.2),
    "base": (6.25e-4, 0.05, 0.6, "group", 20.0, 100, 0.8, 1.0, 0.1, 0.1),
    "large": (6.25e-4, 0.05, 0.6, "group", 20.0, 100, 0.8, 1.0, 0.1, 0.2),
    "huge": (1.25e-3, 0.05, 0.75, "single", 10.0, 50, 0.8, 1.0, 0.1, 0.3),
}
"""Fine-tuning on ImageNet-1K after FCMAE: _SCHEDULE, then _STRENGTH."""

FINETUNE_22K = {
    "nano": (0.9, "single", 0.0),
    "tiny": (0.9, "single", 0.0),
    "base": (0.8, "group", 0.1),
    "large": (0.8, "group", 0.1),
    "huge": (0.8, "single", 0.3),
}
"""Intermediate fine-tuning on ImageNet-22K after FCMAE: layer decay and its type, drop path."""

FINETUNE_22K_1K = {
    "nano": (0.9, "single", 90, 0.1, True),
    "tiny": (0.9, "single", 90, 0.1, True),
    "base": (0.8, "group", 30, 0.2, True),
    "large": (0.8, "group", 30, 0.3, True),
    "huge": (0.85, "single", 30, 0.5, False),
}
"""Fine-tuning on ImageNet-1K after 22K: layer decay and its type, epochs, drop path, whether there is an EMA."""


def _model(task: str, size: str) -> Layer:
    return Layer("the recipe's name", {"task": task, "model": f"convnextv2_{size}"})


def _batch(total: int, device: int, source: str) -> Layer:
    """The published batch on one device: one micro-batch for each device of the released command."""
    return Layer(source, {"batch_size": device, "update_freq": total // device})


def _pretrain(size: str) -> list[Layer]:
    source = "paper, pre-training settings" + (" and released command" if size == "base" else "")
    values = {"blr": 1.5e-4, "weight_decay": 0.05, "min_lr": 0.0, "warmup_epochs": 40.0}
    return [
        _model("pretrain", size),
        Layer(source, values | {"crop_scale": (0.2, 1.0), "mask_ratio": 0.6, "norm_pix_loss": True}),
        Layer("released command for base; the paper gives 800 or 1600", {"epochs": 1600}),
        _batch(4096, 64, "released command for base: 64 per GPU, 4096 per update"),
    ]


def _finetune(size: str) -> list[Layer]:
    row = dict(zip(_SCHEDULE + _STRENGTH, FINETUNE[size], strict=True))
    source = "paper, fine-tuning settings on ImageNet-1K" + (" and released command" if size in COMMANDS else "")
    command = "released command" + ("" if size in COMMANDS else "s of atto, tiny and base")
    layers = [
        _model("finetune", size),
        Layer(source, row | {"reprob": 0.25, "model_ema": True, "model_ema_decay": 0.9999}),
        Layer(command, {"model_ema_eval": True, "precision": "bfloat16"}),
        _batch(1024, 32, f"{command}: 32 per GPU, 1024 per update"),
    ]
    if size in ("base", "large"):
        layers.append(Layer("released command for base; the paper prints 6.25e-3", {"blr": row["blr"]}))
    return layers


def _finetune_22k(size: str) -> list[Layer]:
    decay, rule, drop_path = FINETUNE_22K[size]
    row = {"blr": 2.5e-4, "weight_decay": 0.05, "layer_decay": decay, "warmup_epochs": 5.0, "epochs": 90}
    row |= {"mixup": 0.8, "cutmix": 1.0, "smoothing": 0.1, "drop_path": drop_path, "reprob": 0.25, "model_ema": False}
    return [
        _model("finetune", size),
        Layer("paper, intermediate fine-tuning settings on ImageNet-22K", row),
        Layer("not published; as on ImageNet-1K for this size", {"layer_decay_type": rule}),
        _batch(4096, 32, "paper: 4096 per update"),
    ]


def _finetune_22k_1k(size: str) -> list[Layer]:
    decay, rule, epochs, drop_path, ema = FINETUNE_22K_1K[size]
    row = {"blr": 2.5e-5, "weight_decay": 1e-8, "layer_decay": decay, "warmup_epochs": 0.0, "epochs": epochs}
    row |= {"mixup": 0.0, "cutmix": 0.0, "smoothing": 0.1, "drop_path": drop_path, "reprob": 0.25}
    return [
        _model("finetune", size),
        Layer("paper, fine-tuning settings on ImageNet-1K after 22K", row),
        Layer("paper: EMA 0.9999, none for huge", {"model_ema": ema, "model_ema_eval": ema}),
        Layer("not published; as on ImageNet-1K for this size", {"layer_decay_type": rule}),
        _batch(512, 32, "paper: 512 per update"),
    ]


RECIPES: dict[str, list[Layer]] = {
    **{f"pretrain_{size}": _pretrain(size) for size in SIZES},
    **{f"finetune_{size}": _finetune(size) for size in SIZES},
    **{f"finetune_22k_{size}": _finetune_22k(size) for size in FINETUNE_22K},
    **{f"finetune_22k_1k_{size}": _finetune_22k_1k(size) for size in FINETUNE_22K_1K},
}
"""Name -> layers."""

DIGITS_IMAGES: dict[str, Any] = {
    # scikit-learn's digits at 32 px, in 4 x 4 patches.
    "in_chans": 1,
    "patch_size": 8,
    "input_size": (32,),
    "crop_scale": (0.6, 1.0),
    "hflip": 0.0,  # a mirrored digit is not a digit
    "mean": (0.5,),
    "std": (0.25,),
    "crop_pct": 1.0,  # a digit fills its image
}

DIGITS_MODEL: dict[str, Any] = {"model": None, "depths": (1, 1, 1), "dims": (24, 48, 96), "decoder_embed_dim": 96}

DIGITS: dict[str, dict[str, Any]] = {
    # A minute or two on two cores.
    "pretrain": {
        "batch_size": 64,
        "epochs": 30,
        "warmup_epochs": 2.0,
        "blr": 6e-3,  # small models need a large learning rate
        "print_freq": 22,  # once per epoch
        "picture_freq": 5,
        "save_ckpt_freq": 5,
    },
    "finetune": {
        "batch_size": 64,
        "epochs": 30,
        "warmup_epochs": 3.0,
        "blr": 4e-3,
        "head_init_scale": 1.0,
        "aa": "none",  # a digit that is rotated, inverted or shifted out of the frame is lost
        "reprob": 0.0,
        "print_freq": 22,
        "eval_freq": 5,
        "save_ckpt_freq": 10,
    },
    **{task: {} for task in ("eval", "predict", "embed", "probe", "reconstruct", "analyse")},
}
"""Task -> values that suit the digits."""

RELEASED: dict[str, str] = {
    "pretrain_base": "submitit_pretrain.py --nodes 8 --ngpus 8 --model convnextv2_base --batch_size 64 --blr 1.5e-4"
    " --epochs 1600 --warmup_epochs 40 --data_path DATA --job_dir OUT",
    "finetune_base": "submitit_finetune.py --nodes 4 --ngpus 8 --model convnextv2_base --batch_size 32 --blr 6.25e-4"
    " --epochs 100 --warmup_epochs 20 --layer_decay_type 'group' --layer_decay 0.6 --weight_decay 0.05 --drop_path 0.1"
    " --reprob 0.25 --mixup 0.8 --cutmix 1.0 --smoothing 0.1 --model_ema True --model_ema_eval True --use_amp True"
    " --finetune CKPT --data_path DATA --job_dir OUT",
    "finetune_atto": "submitit_finetune.py --nodes 4 --ngpus 8 --model convnextv2_atto --batch_size 32 --blr 2e-4"
    " --epochs 600 --warmup_epochs 0 --layer_decay_type 'single' --layer_decay 0.9 --weight_decay 0.3 --drop_path 0.1"
    " --reprob 0.25 --mixup 0. --cutmix 0. --smoothing 0.2 --model_ema True --model_ema_eval True --use_amp True"
    " --finetune CKPT --data_path DATA --job_dir OUT",
    "finetune_tiny": "submitit_finetune.py --nodes 4 --ngpus 8 --model convnextv2_tiny --batch_size 32 --blr 8e-4"
    " --epochs 300 --warmup_epochs 40 --layer_decay_type 'single' --layer_decay 0.9 --weight_decay 0.05 --drop_path 0.2"
    " --reprob 0.25 --mixup 0.8 --cutmix 1.0 --smoothing 0.1 --model_ema True --model_ema_eval True --use_amp True"
    " --finetune CKPT --data_path DATA --job_dir OUT",
}
"""Recipe -> its command in TRAINING.md of the published code, with DATA, CKPT and OUT for its paths."""
