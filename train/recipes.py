"""Named sets of values for the flags, as plain data."""

from typing import Any

DIGITS: dict[str, Any] = {
    # scikit-learn's digits at 32 px, in 4 x 4 patches: a minute or two on two cores.
    "model": None,
    "depths": (1, 1, 1),
    "dims": (24, 48, 96),
    "in_chans": 1,
    "patch_size": 8,
    "decoder_embed_dim": 96,
    "input_size": (32,),
    "crop_scale": (0.6, 1.0),
    "hflip": 0.0,  # a digit's mirror image is no digit
    "mean": (0.5,),
    "std": (0.25,),
    "batch_size": 64,
    "epochs": 25,
    "warmup_epochs": 2.0,
    "blr": 6e-3,  # a small model takes, and needs, large steps
    "print_freq": 28,  # once an epoch
    "picture_freq": 5,
    "save_ckpt_freq": 5,
}
