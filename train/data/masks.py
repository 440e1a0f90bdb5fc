"""The masks of a run: drawn on the host, the same number of removed patches for each image."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

import spec
from backends.protocol import Batch
from backends.rng import Stream, generator
from train.config import Config
from train.data import policies
from train.data.decode import BrokenImage
from train.data.feed import read_with_mask
from train.data.no_data import empty_patches, remove_first, split
from train.data.sources import Source
from train.data.transforms import centre_crop
from train.errors import TrainError

LOOKED_AT = 256
"""Images whose masks are counted before a run."""

NOT_GIVEN = np.zeros((0, 0, 0), np.uint8)
"""The image that policies get which do not look at it."""


@dataclass(frozen=True)
class Masks:
    """The batch column that pre-training adds: one mask per position, by a policy."""

    seed: int
    grid: tuple[int, int]
    visible: int
    policy: str = "uniform"

    def __call__(self, positions: np.ndarray, images: np.ndarray, no_data: np.ndarray | None = None) -> Batch:
        """images: (N, H, W, C), before normalisation. no_data: (N, H, W) of the data's masks, 1 = no data."""
        empty = None if no_data is None else empty_patches(no_data, self.grid)
        return {"mask": random_masks(self.seed, positions, self.grid, self.visible, self.policy, images, empty)}


def masks_of(config: Config, model: spec.FCMAE, source: Source) -> Masks:
    """The masks of a run's configuration.

    TrainError unless its policy returns masks, the same for the same draws, and those of the data can be used.
    """
    if source.reading.masked and config.data.decode == "scaled":
        raise TrainError("--decode scaled: does not scale the masks of the data; give --decode exact")
    if source.reading.masked and config.data.exif:
        raise TrainError("--exif True: does not rotate the masks of the data; rotate the files, or give --exif False")
    masks = Masks(config.run.seed, model.grid, spec.visible_patches(model), config.model.mask_policy)
    noise = generator(0, Stream.MASK, 0).integers(0, 256, (*model.image_size, model.encoder.in_chans), np.uint8)
    first, second = (masks(np.zeros(1, int), noise[None])["mask"] for _ in range(2))
    if (first != second).any():
        raise TrainError(
            f"--mask_policy {masks.policy}: returned two masks for the same arguments; draw from its rng only"
        )
    return masks


def describe_no_data(config: Config, model: spec.FCMAE, source: Source) -> Iterator[str]:
    """A line on the masks of the data, if there are any, from at most LOOKED_AT images, centre-cropped."""
    if not source.reading.masked:
        return
    looked, patches = min(LOOKED_AT, len(source)), model.grid[0] * model.grid[1]
    found, broken = list[int](), list[str]()
    for index in np.linspace(0, len(source), looked, endpoint=False).astype(int).tolist():
        try:
            image, _ = read_with_mask(source, index, model.encoder.in_chans)
        except BrokenImage as error:
            broken.append(str(error))
            continue
        _, no_data = split(centre_crop(image, model.image_size)[None], model.encoder.in_chans)
        found.append(0 if no_data is None else int(empty_patches(no_data, model.grid).sum()))
    if not found:  # the first batch says why
        return
    counts, removed = np.array(found), patches - spec.visible_patches(model)
    yield (
        f"masks of the data, in {len(counts):,} of {len(source):,} images: {counts.mean():.1f} of {patches} patches"
        f" have no data on average; {(counts > removed).sum():,} images have more such patches than the {removed} that"
        f" are removed, so some stay visible; {(counts < removed).sum():,} have fewer, so --mask_policy"
        f" {config.model.mask_policy} removes others, too"
    )
    if broken:
        yield f"note: {len(broken):,} of {looked:,} images with their masks cannot be read; {broken[0]}"


def random_masks(
    seed: int,
    positions: np.ndarray,
    grid: tuple[int, int],
    visible: int,
    policy: str = "uniform",
    images: np.ndarray | None = None,
    empty: np.ndarray | None = None,
) -> np.ndarray:
    """(N, G_h, G_w) uint8, 1 = removed; `visible` patches are kept, which ones is up to the policy.

    positions: (N,) positions of the samples in the run, the index of the random stream. images:
    (N, H, W, C), before normalisation; only policies that look at them need them. empty: (N, G_h, G_w), the
    patches without data, which are removed first.
    """
    masks = np.empty((len(positions), *grid), np.uint8)
    for row, position in enumerate(positions.tolist()):
        rng = generator(seed, Stream.MASK, position)
        masks[row] = policies.apply(policy, rng, grid, visible, NOT_GIVEN if images is None else images[row])
        if empty is not None:
            masks[row] = remove_first(masks[row], empty[row], rng)
    return masks
