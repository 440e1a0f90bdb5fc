"""Mask policies: exactly K visible patches, a pure function of seed, position and image, in either framework."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import NAMES
from tests.train import fake
from tests.train.fake import assert_same_run
from tests.train.images import tree
from train.config import cli
from train.data import policies
from train.data.masks import masks_of, random_masks
from train.data.policies import POLICIES
from train.errors import TrainError
from train.tasks.pretrain import Pretraining

GRIDS = st.tuples(st.integers(1, 8), st.integers(2, 8))
NAMED = st.sampled_from(sorted(POLICIES))
MANY = 4000


def noise(seed: int, grid: tuple[int, int], patch: int = 4) -> np.ndarray:
    """An image of noise, of a random strength in each patch; some patches are flat."""
    rng = np.random.default_rng(seed)
    strength = rng.integers(0, 3, grid).repeat(patch, 0).repeat(patch, 1)[..., None]
    return (rng.integers(0, 100, (grid[0] * patch, grid[1] * patch, 2)) * strength).astype(np.uint8)


def often(policy: str, grid: tuple[int, int], keep: int, image: np.ndarray | None = None) -> np.ndarray:
    """(G_h, G_w) the share of MANY masks in which a patch is removed."""
    image = noise(0, grid) if image is None else image
    return random_masks(3, np.arange(MANY), grid, keep, policy, np.broadcast_to(image, (MANY, *image.shape))).mean(0)


def deviation(grid: tuple[int, int], keep: int) -> float:
    """The standard deviation of such a share, if all patches are equally likely."""
    share = keep / (grid[0] * grid[1])
    return float((share * (1 - share) / MANY) ** 0.5)


@given(NAMED, GRIDS, st.data(), st.integers(0, 2**32), st.integers(0, 2**62))
def test_exactly_k_patches_stay(policy: str, grid: tuple[int, int], data: st.DataObject, seed: int, first: int) -> None:
    visible = data.draw(st.integers(1, grid[0] * grid[1] - 1), label="visible")
    images = np.stack([noise(seed + row, grid) for row in range(3)])
    masks = random_masks(seed, first + np.arange(3), grid, visible, policy, images)
    assert (masks.shape, masks.dtype) == ((3, *grid), np.uint8)
    assert ((masks == 0).sum((1, 2)) == visible).all()
    assert ((masks == 0) | (masks == 1)).all()


@given(NAMED, st.integers(0, 2**32), st.integers(0, 10**9), st.permutations(range(6)), st.integers(1, 5))
def test_a_mask_depends_on_seed_position_and_image_only(
    policy: str, seed: int, first: int, order: list[int], split: int
) -> None:
    images, positions = np.stack([noise(row, (5, 4)) for row in range(6)]), first + np.arange(6)
    whole = random_masks(seed, positions, (5, 4), 7, policy, images)
    for part in (order[:split], order[split:]):
        again = random_masks(seed, positions[part], (5, 4), 7, policy, images[part])
        np.testing.assert_array_equal(again, whole[part])


def test_uniform_masks_never_change() -> None:
    """Of the first release, seed 3, position 5: runs that began with it continue."""
    found = random_masks(3, np.array([5]), (7, 7), 19)
    assert np.packbits(found).tobytes().hex() == "8f3de155bc3f80"


@pytest.mark.parametrize(
    ("policy", "grid", "keep"),
    [("uniform", (5, 6), 11), ("grid", (8, 8), 25), ("grid", (4, 4), 7), ("importance", (5, 6), 11)],
)
def test_every_patch_is_removed_equally_often(policy: str, grid: tuple[int, int], keep: int) -> None:
    """Within five standard deviations; importance: in a flat image."""
    flat = np.full((8 * grid[0], 8 * grid[1], 3), 7, np.uint8)
    error = often(policy, grid, keep, flat) - (1 - keep / (grid[0] * grid[1]))
    assert np.abs(error).max() < 5 * deviation(grid, keep)


def test_blocks_favour_the_centre_and_are_symmetric() -> None:
    share = often("block", (7, 7), 19)
    for other in (share[::-1], share[:, ::-1]):
        assert np.abs(share - other).max() < 5 * 2**0.5 * deviation((7, 7), 19)
    assert share[3, 3] > 0.8
    assert share[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 0.4


def test_blocks_are_larger_than_chance() -> None:
    """The share of neighbours of removed patches that are removed, too: 29/48 by chance."""
    images = noise(0, (7, 7))[None].repeat(200, 0)
    chance, blocks = (random_masks(0, np.arange(200), (7, 7), 19, name, images) for name in ("uniform", "block"))

    def together(masks: np.ndarray) -> float:
        pairs = np.concatenate(
            [(a & b).reshape(-1) for a, b in ((masks[:, 1:], masks[:, :-1]), (masks[..., 1:], masks[..., :-1]))]
        )
        return float(pairs.mean()) / float(masks.mean())

    assert abs(together(chance) - 29 / 48) < 0.02
    assert together(blocks) > 0.75


def test_a_grid_is_regular() -> None:
    quarter, half = (random_masks(0, np.arange(50), (6, 8), keep, "grid") for keep in (12, 24))
    first = quarter[:, :2, :2]
    assert (first.sum((1, 2)) == 3).all()
    np.testing.assert_array_equal(quarter, np.tile(first, (1, 3, 4)))
    np.testing.assert_array_equal(half[:, 1:, 1:], half[:, :-1, :-1])
    np.testing.assert_array_equal(half[:, 1:], 1 - half[:, :-1])


@given(GRIDS, st.data(), st.integers(0, 2**32))
def test_a_grid_leaves_no_large_hole(grid: tuple[int, int], data: st.DataObject, seed: int) -> None:
    """With a patch visible per 2 x 2 in number, one is visible in every 2 x 2."""
    least = -(-grid[0] // 2) * -(-grid[1] // 2)
    keep = data.draw(st.integers(least, max(least, grid[0] * grid[1] - 1)), label="keep")
    (mask,) = random_masks(seed, np.zeros(1, int), grid, keep, "grid", noise(0, grid)[None])
    windows = np.lib.stride_tricks.sliding_window_view(mask, (min(2, grid[0]), min(2, grid[1])))
    assert (windows.min((2, 3)) == 0).all()


def test_detail_is_removed_more_often() -> None:
    """Twice the weight of average detail, three times that of a patch with twice the average, for the first one."""
    image = np.zeros((2 * 4, 2 * 4, 1), np.uint8)
    image[:4:2, 4:], image[4::2, :4], image[4::2, 4:] = 50, 100, 150
    share = often("importance", (2, 2), 3, image)
    assert np.abs(share - np.array([[1, 5 / 3], [7 / 3, 3]]) / 8).max() < 5 * deviation((2, 2), 2)


def test_the_units_of_channels_do_not_matter() -> None:
    images = np.stack([noise(seed, (5, 6)) for seed in range(20)]).astype(np.float32)
    plain, scaled = (
        random_masks(0, np.arange(20), (5, 6), 11, "importance", each) for each in (images, images * [8, 0.5])
    )
    np.testing.assert_array_equal(scaled, plain)
    other = random_masks(0, np.arange(20), (5, 6), 11, "importance", images * [1, 0])
    assert (other != plain).any()


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_both_frameworks_get_the_same_batch(policy: str, tmp_path: Path) -> None:
    words = [*fake.QUICK.split(), "--data_path", str(tree(tmp_path, each=6)), "--mask_policy", policy]
    feeds = [Pretraining(cli.parse([*words, "--backend", name])).feed(4, 4, 3) for name in NAMES]
    batches = [[feed(index)[0] for index in (0, 4)] for feed in feeds]
    for ours, theirs in zip(*batches, strict=True):
        assert {name: array.tobytes() for name, array in ours.items()} == {
            name: array.tobytes() for name, array in theirs.items()
        }


OWN = """
import numpy as np

calls = 0

def diagonal(rng, grid, keep, image):
    mask = np.ones(grid, bool)
    mask.flat[rng.permutation(mask.size)[:keep]] = False
    return mask

def one_too_many(rng, grid, keep, image):
    return diagonal(rng, grid, keep + 1, image)

def flat(rng, grid, keep, image):
    return diagonal(rng, grid, keep, image).reshape(-1)

def floats(rng, grid, keep, image):
    return diagonal(rng, grid, keep, image) * 0.5

def percent(rng, grid, keep, image):
    return diagonal(rng, grid, keep, image).astype(int) * 100

def listed(rng, grid, keep, image):
    return diagonal(rng, grid, keep, image).tolist()

def stateful(rng, grid, keep, image):
    global calls
    calls += 1
    return diagonal(np.random.default_rng(calls), grid, keep, image)

def scribbles(rng, grid, keep, image):
    image[:] = 0

def fails(rng, grid):
    return None

number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current folder."""
    name = f"own_policy_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def test_a_function_of_ones_own_is_a_policy(own: str, tmp_path: Path) -> None:
    """In worker processes, too, and when resumed."""
    images = tree(tmp_path / "images", each=20)
    flags = ("--mask_policy", f"{own}:diagonal", "--epochs", "2", "--num_workers", "2")
    fake.train(images, tmp_path / "whole", *flags)
    fake.train(images, tmp_path / "cut", *flags, "--worker_type", "process", "--stop_at_step", "4")
    fake.train(images, tmp_path / "cut", *flags)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.parametrize(
    ("function", "line"),
    [
        ("one_too_many", "returned a mask with 7 zeros; expected bool or integers (4, 4), 1 = removed, with 6 zeros"),
        ("flat", "returned bool (16,); expected"),
        ("floats", "returned float64 (4, 4); expected"),
        ("percent", "returned values from 0 to 100; expected"),
        ("listed", "returned a list; expected"),
        ("stateful", "returned two masks for the same arguments; draw from its rng only"),
        (
            "scribbles",
            "fails for a grid of (4, 4) with 6 to keep (ValueError: assignment destination is read-only, own",
        ),
        (
            "fails",
            "fails for a grid of (4, 4) with 6 to keep (TypeError: fails() takes 2 positional arguments but 4 were"
            " given; it must take (rng, grid, keep, image))",
        ),
        ("number", "int, not a function (rng, grid, keep, image)"),
        ("absent", "cannot be imported (AttributeError: "),
    ],
)
def test_a_wrong_function_is_one_line(own: str, function: str, line: str) -> None:
    config = cli.parse([*fake.QUICK.split(), "--mask_policy", f"{own}:{function}"])
    with pytest.raises(TrainError) as error:
        Pretraining(config)
    assert str(error.value).startswith(f"--mask_policy {own}:{function}: {line}")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("blok", "unknown; did you mean 'block'?"),
        ("random", "unknown; choose uniform, block, grid, importance or package.module:function"),
        ("absent_module:f", "cannot be imported (ModuleNotFoundError: No module named 'absent_module')"),
    ],
)
def test_an_unknown_policy_is_one_line(name: str, line: str) -> None:
    with pytest.raises(TrainError) as error:
        policies.find(name)
    assert str(error.value) == f"--mask_policy {name}: {line}"


def test_a_resumed_run_keeps_its_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tree(tmp_path / "images", each=12)
    fake.train(images, tmp_path / "run", "--mask_policy", "block", "--stop_at_step", "1")
    with pytest.raises(TrainError, match="--mask_policy: the run began with block, now it is uniform; give --mask_pol"):
        fake.train(images, tmp_path / "run")
    fake.train(images, tmp_path / "run", "--mask_policy", "grid")
    assert "note: --mask_policy is grid, the run began with block" in capsys.readouterr().out


def test_the_masks_of_a_run_are_those_of_its_flags() -> None:
    config = cli.parse(["--mask_policy", "grid", "--seed", "4", "--mask_rounding", "ceil", "--mask_ratio", "0.55"])
    task = Pretraining(config)
    masks = masks_of(config, task.model, task.source)
    assert (masks.policy, masks.seed, masks.grid, masks.visible) == ("grid", 4, (4, 4), 8)
