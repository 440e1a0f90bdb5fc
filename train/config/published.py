"""Flags of the published scripts that do not exist here: what replaces them, and which of their values are accepted."""

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from convert.naming import WRAPPERS
from train.errors import TrainError


class Published(NamedTuple):
    """Values with no effect here (None: any), and what to use instead."""

    harmless: tuple[str, ...] | None
    instead: str


PUBLISHED: dict[str, Published] = {
    "opt": Published(("adamw",), "every published recipe trains with AdamW, and so does everything here"),
    "opt_eps": Published(("1e-8",), "AdamW's epsilon is 1e-8, as published"),
    "momentum": Published(None, "is SGD's; AdamW has none"),
    "weight_decay_end": Published(("none",), "weight decay is constant, as in every recipe; give --weight_decay"),
    "warmup_steps": Published(("-1", "0"), "warm-up is given in epochs, which may be a fraction: give --warmup_epochs"),
    "layer_scale_init_value": Published(("0", "1e-6"), "--model decides: V1 begins at 1e-6, V2 has none; leave it out"),
    "color_jitter": Published(("none", "0"), "the published script ignores it beside RandAugment (--aa); leave it out"),
    "train_interpolation": Published(("bicubic",), "images are resized bicubically, as in every recipe"),
    "resplit": Published(("false",), "there is no split without augmentation; leave it out"),
    "cutmix_minmax": Published(("none",), "the boxes of cutmix follow a beta distribution; give its alpha as --cutmix"),
    "mixup_mode": Published(("batch",), "one draw mixes all images of a group; --mix_group is their number"),
    "model_ema_force_cpu": Published(None, "the EMA is stored beside the parameters; its values are the same"),
    "model_key": Published(
        ("model|module", "model", "state_dict"),
        "parameters are found under model or state_dict, or at the top; make a file with others readable with"
        " twinnext convert translate FILE --key KEY --to ours -o NEW",
    ),
    "model_prefix": Published(
        (*WRAPPERS, ""),
        f"the prefixes {', '.join(WRAPPERS)} are found and dropped; make a file with another readable with"
        " twinnext convert translate FILE --prefix PREFIX --to ours -o NEW",
    ),
    "data_set": Published(
        ("imnet", "image_folder"), "--data_path may be folders, tars, parquet or npz, which are recognised"
    ),
    "dist_eval": Published(None, "every image is evaluated once, on any number of devices"),
    "pin_mem": Published(None, "the trainer chooses how batches are copied to the device"),
    "wandb_ckpt": Published(("false",), "checkpoints are in the run directory"),
    "distributed": Published(("false",), "is detected; leave it out"),
    "world_size": Published(("1", "-1"), "is detected; leave it out"),
    "local_rank": Published(None, "is detected"),
    "dist_on_itp": Published(None, "mpirun's variables are read; leave it out"),
    "dist_url": Published(None, "is detected"),
}
"""Name -> what replaces it."""


def explain(name: str, values: Sequence[str]) -> str:
    """A line about a published flag whose value has no effect here; TrainError if the value would have one."""
    harmless, instead = PUBLISHED[name]
    line = f"{' '.join([f'--{name}', *values])}: {instead}"
    if harmless is not None and not any(_same(" ".join(values), value) for value in harmless):
        raise TrainError(line)
    return line


def split(words: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """Split words that begin with a flag into its name, its values, and the remaining words."""
    name, equals, value = words[0].partition("=")
    values = [value] if equals else list(takewhile(lambda word: not word.startswith("--"), words[1:]))
    return name.removeprefix("--"), values, list(words[1 if equals else 1 + len(values) :])


def _same(word: str, value: str) -> bool:
    """Whether two words are the same number, or the same text but for case."""
    try:
        return float(word) == float(value)
    except ValueError:
        return word.lower() == value
