"""`python -m experiments.mask_pictures`: what each mask policy removes of two held-out digits; 19 of 49 patches stay.

Writes docs/mask_policies.png.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import spec
from train.data.digits import Digits
from train.data.masks import random_masks
from train.data.policies import POLICIES
from train.data.transforms import resize
from train.report.pictures import REMOVED

PICTURE = Path(__file__).parents[1] / "docs" / "mask_policies.png"
GRID, PATCH = (7, 7), 8
VISIBLE = spec.count_visible(GRID, 0.6)
COLUMNS = 5
"""Of each digit: itself, and four masks."""


def main(path: Path = PICTURE) -> None:
    """Draw a row per policy: one digit and its masks, then the other."""
    digits = [resize(Digits("val").images[index], (GRID[0] * PATCH, GRID[1] * PATCH)) for index in (3, 5)]
    images = np.repeat(digits, COLUMNS, 0)
    figure = Figure((8.4, 3.1), layout="constrained")
    axes = figure.subplots(len(POLICIES), len(images))
    for row, policy in zip(axes, POLICIES, strict=True):
        masks = random_masks(0, np.arange(len(images)), GRID, VISIBLE, policy, images)
        masks[::COLUMNS] = 0
        for axis, image, mask in zip(row, images, masks, strict=True):
            hidden = np.kron(mask, np.ones((PATCH, PATCH), bool))
            axis.imshow(np.where(hidden, np.uint8(REMOVED), image[..., 0]), cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[], frame_on=False)
        row[0].set_ylabel(policy, rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
