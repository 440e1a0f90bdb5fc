"""Flags of the published scripts that have no place here: what does their work, and which values change nothing."""

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from train.errors import TrainError


class Published(NamedTuple):
    """Values that mean what happens here anyway (None: any), and what to know or do instead."""

    harmless: tuple[str, ...] | None
    instead: str


PUBLISHED: dict[str, Published] = {
    "opt": Published(("adamw",), "every published recipe trains with AdamW, and so does everything here"),
    "opt_eps": Published(("1e-8",), "AdamW's epsilon is 1e-8, as published"),
    "opt_betas": Published(("none",), "AdamW's betas are 0.9 0.95 in pre-training and 0.9 0.999 after, as published"),
    "momentum": Published(None, "is SGD's; AdamW has none"),
    "weight_decay_end": Published(("none",), "weight decay is constant, as in every recipe; give --weight_decay"),
    "warmup_steps": Published(("-1", "0"), "warm-up is told in epochs, which may be a fraction: give --warmup_epochs"),
    "layer_scale_init_value": Published(("0",), "ConvNeXt V2 has GRN in place of layer scale; leave it out"),
    "color_jitter": Published(("none", "0"), "the published script ignores it beside RandAugment (--aa); leave it out"),
    "train_interpolation": Published(("bicubic",), "images are resized bicubically, as in every recipe"),
    "resplit": Published(("false",), "there is no split without augmentation; leave it out"),
    "cutmix_minmax": Published(("none",), "boxes of cutmix follow a beta distribution; give its shape as --cutmix"),
    "mixup_mode": Published(("batch",), "one draw mixes all images of a group; --mix_group says how many they are"),
    "model_ema_force_cpu": Published(None, "the average lives beside the parameters; its values are the same"),
    "model_key": Published(None, "the parameters in a checkpoint are found by what they are"),
    "model_prefix": Published(None, "a prefix of the names in a checkpoint is found and dropped"),
    "data_set": Published(("imnet", "image_folder"), "--data_path tells by itself: folders, tars, parquet or npz"),
    "dist_eval": Published(None, "every image is judged once, however many devices there are"),
    "pin_mem": Published(None, "the trainer copies batches as suits the device"),
    "wandb_ckpt": Published(("false",), "checkpoints are in the run directory"),
    "distributed": Published(("false",), "is found out by itself; leave it out"),
    "world_size": Published(("1", "-1"), "is found out by itself; leave it out"),
    "local_rank": Published(None, "is found out by itself"),
    "dist_on_itp": Published(("false",), "is found out by itself; leave it out"),
    "dist_url": Published(None, "is found out by itself"),
}
"""Name -> what takes its place. A flag that gets one of its own loses its line here."""


def told(name: str, values: Sequence[str]) -> str:
    """A line for the user about a flag that changes nothing; TrainError where its value would."""
    harmless, instead = PUBLISHED[name]
    line = f"{' '.join([f'--{name}', *values])}: {instead}"
    if harmless is not None and not any(_same(" ".join(values), value) for value in harmless):
        raise TrainError(line)
    return line


def split(words: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """The name of the flag that some words begin with, its values, and the words after them."""
    name, equals, value = words[0].partition("=")
    values = [value] if equals else list(takewhile(lambda word: not word.startswith("--"), words[1:]))
    return name.removeprefix("--"), values, list(words[1 if equals else 1 + len(values) :])


def _same(word: str, value: str) -> bool:
    """Whether two words are the same number or the same text."""
    try:
        return float(word) == float(value)
    except ValueError:
        return word.lower() == value
