"""Mask policies: which patches of an image are removed.

A policy is a function (rng, grid, keep, image) -> mask, pure in its arguments:

rng: numpy.random.Generator, new for each sample; grid: (G_h, G_w); keep: K, the number of visible
patches; image: (H, W, C) as in the batch, read-only. The mask is (G_h, G_w), bool or 0 and 1, 1 =
removed, with exactly K zeros. The policies here use raw words only, as `backends.rng` explains.
"""

import importlib
import math
import os
import sys
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from backends.rng import uniform as to_unit
from spec.console import nearest
from train.errors import TrainError

Policy = Callable[[np.random.Generator, tuple[int, int], int, np.ndarray], np.ndarray]

BLOCKS = 32
"""Most blocks of a mask; what is still missing then is removed at random."""

SMALLEST = 16 / 196
"""Smallest area of a block, as a fraction of the grid: BEiT's 16 of 14 x 14 patches."""

ASPECT = (0.3, 1 / 0.3)
"""Height / width of a block, as in BEiT."""


def uniform(rng: np.random.Generator, grid: tuple[int, int], keep: int, image: np.ndarray) -> np.ndarray:
    """Random patches, all subsets of K equally likely: as published for FCMAE."""
    return _keep_lowest(grid, keep, _words(rng, grid))


def block(rng: np.random.Generator, grid: tuple[int, int], keep: int, image: np.ndarray) -> np.ndarray:
    """Removes rectangles, as BEiT (Bao et al. 2022, algorithm 1), until K patches are left.

    A rectangle has an area from SMALLEST to what is still to be removed, and an aspect from ASPECT, both
    random. The last one may cover too much: random patches of it stay. Patches near the centre of the grid are
    removed more often than those at its border; the distribution is symmetric under flips.
    """
    rows, columns = grid
    smallest = max(1, round(SMALLEST * rows * columns))
    first = np.full(grid, BLOCKS)  # the number of the first block that covers a patch
    for number in range(BLOCKS):
        missing = int((first == BLOCKS).sum()) - keep
        if missing <= 0:
            break
        size, shape, down, right = to_unit(rng.bit_generator.random_raw(4)).tolist()
        area = smallest + size * max(0, missing - smallest)
        aspect = ASPECT[0] * (ASPECT[1] / ASPECT[0]) ** shape
        height = min(rows, max(1, round(math.sqrt(area * aspect))))
        width = min(columns, max(1, round(math.sqrt(area / aspect))))
        top, left = math.floor(down * (rows - height + 1)), math.floor(right * (columns - width + 1))
        covered = first[top : top + height, left : left + width]
        np.minimum(covered, number, out=covered)
    return _keep_lowest(grid, keep, _words(rng, grid), -first.reshape(-1))


def regular(rng: np.random.Generator, grid: tuple[int, int], keep: int, image: np.ndarray) -> np.ndarray:
    """Keeps a regular grid with a random offset: one patch of each 2 x 2 at ratio 0.75, as MAE's grid-wise sampling.

    (He et al. 2022, figure 6.) For any K: the K lowest thresholds of ordered dithering (Bayer 1973), which are
    spread evenly; at 0.5 a chequerboard. All patches are kept equally often if both sides of the grid are one
    power of two, and nearly so otherwise.
    """
    bits = (max(grid) - 1).bit_length()
    down, right = (int(word) & (2**bits - 1) for word in rng.bit_generator.random_raw(2))
    row, column = np.arange(grid[0])[:, None] + down, np.arange(grid[1]) + right
    threshold = np.zeros(grid, np.int64)
    for bit in range(bits):
        y, x = row >> bit & 1, column >> bit & 1
        threshold = 4 * threshold + 2 * (x ^ y) + y
    return _keep_lowest(grid, keep, threshold.reshape(-1))


def importance(rng: np.random.Generator, grid: tuple[int, int], keep: int, image: np.ndarray) -> np.ndarray:
    """Removes patches with much detail more often than flat ones.

    Draws the removed patches one after the other, without replacement (Efraimidis and Spirakis 2006). Half of a
    patch's weight is the same for all, half is proportional to the standard deviation of its pixels: of each channel
    relative to the image's average, so that the units of channels do not matter, then averaged over channels. In an
    image without any detail all patches are equally likely.
    """
    detail = _detail(image, grid)
    average = np.broadcast_to(detail.mean(0), detail.shape)
    weight = 1 + np.divide(detail, average, out=np.ones_like(detail), where=average > 0).mean(-1)
    return _keep_lowest(grid, keep, np.log1p(-to_unit(_words(rng, grid))) / weight)


POLICIES: dict[str, Policy] = {"uniform": uniform, "block": block, "grid": regular, "importance": importance}


@lru_cache
def find(name: str) -> Policy:
    """The policy of a name, or the function that "package.module:function" names; TrainError if there is none."""
    if name in POLICIES:
        return POLICIES[name]
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        hint = nearest(name, POLICIES) or f"choose {', '.join(POLICIES)} or package.module:function"
        raise TrainError(f"--mask_policy {name}: unknown; {hint}")
    return _imported(name, module, function)


def _imported(name: str, module: str, function: str) -> Policy:
    """A user's function. Modules in the current folder are found, too."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever a user's module raises
        raise TrainError(f"--mask_policy {name}: cannot be imported ({type(error).__name__}: {error})") from None
    if not callable(found):
        raise TrainError(f"--mask_policy {name}: {type(found).__name__}, not a function (rng, grid, keep, image)")
    return found


def apply(name: str, rng: np.random.Generator, grid: tuple[int, int], keep: int, image: np.ndarray) -> np.ndarray:
    """(G_h, G_w) uint8, 1 = removed: the mask of a policy. TrainError, one line, if it is not such a mask."""
    seen = image.view()
    seen.flags.writeable = False
    policy = find(name)
    try:
        mask = policy(rng, grid, keep, seen)
    except Exception as error:
        where = f"{type(error).__name__}: {error}{_place(error)}"
        raise TrainError(f"--mask_policy {name}: fails for a grid of {grid} with {keep} to keep ({where})") from None
    wrong = _what_is_wrong(mask, grid, keep)
    if wrong:
        raise TrainError(
            f"--mask_policy {name}: returned {wrong}; expected bool or integers {grid}, 1 = removed, with {keep} zeros"
        )
    return mask.astype(np.uint8)


def _place(error: Exception) -> str:
    """The file and line at which a user's function failed; its arguments if the call itself did."""
    trace = error.__traceback__
    if not (trace and trace.tb_next):
        return "; it must take (rng, grid, keep, image)"
    while trace.tb_next:
        trace = trace.tb_next
    return f", {os.path.basename(trace.tb_frame.f_code.co_filename)} line {trace.tb_lineno}"


def _what_is_wrong(mask: object, grid: tuple[int, int], keep: int) -> str:
    if not isinstance(mask, np.ndarray):
        return f"a {type(mask).__name__}"
    if mask.shape != grid or mask.dtype.kind not in "biu":
        return f"{mask.dtype} {mask.shape}"
    if not np.isin(mask, (0, 1)).all():
        return f"values from {mask.min()} to {mask.max()}"
    kept = int((mask == 0).sum())
    return "" if kept == keep else f"a mask with {kept} zeros"


def _keep_lowest(grid: tuple[int, int], keep: int, *keys: np.ndarray) -> np.ndarray:
    """The mask that keeps the patches that sort first by the last key, then by those before it."""
    mask = np.ones(grid, np.uint8)
    mask.reshape(-1)[np.lexsort(keys)[:keep]] = 0
    return mask


def _words(rng: np.random.Generator, grid: tuple[int, int]) -> np.ndarray:
    """One raw word per patch."""
    return np.asarray(rng.bit_generator.random_raw(grid[0] * grid[1]))


def _detail(image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(L, C) the standard deviation of the pixels of each patch."""
    (rows, columns), (height, width, channels) = grid, image.shape
    pixels = image.astype(np.float64).reshape(rows, height // rows, width * channels)

    def of_patches(sums: np.ndarray) -> np.ndarray:
        return np.asarray(sums.reshape(*grid, width // columns, channels).sum(2))

    total, squares = of_patches(pixels.sum(1)), of_patches(np.einsum("rpw,rpw->rw", pixels, pixels))
    count = height * width // (rows * columns)
    variance = np.maximum(count * squares - total**2, 0) / count**2  # exact for integers, so flat patches have 0
    return np.asarray(np.sqrt(variance).reshape(-1, channels))
