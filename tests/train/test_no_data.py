"""Masks that come with the data: transformed with the image, removed first, exactly K visible."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from backends import NAMES
from parity_tests import tolerances
from tests.train import fake
from tests.train.fake import assert_same_run
from tests.train.images import encoded, pixels, tree, trust
from tests.train.shards import FILES, arrays, shard, table
from train.__main__ import main
from train.config import cli
from train.data import cache
from train.data.decode import BrokenImage
from train.data.feed import Feed, read_with_mask
from train.data.masks import Masks, random_masks
from train.data.no_data import empty_patches, joined, remove_first, split
from train.data.reading import ReadOptions
from train.data.sources import open_source
from train.data.transforms import CropAndFlip
from train.errors import TrainError
from train.tasks.pretrain import Pretraining

SIZE = (40, 56)
"""Of the images in FILES."""

MASKS = np.stack([pixels(seed, *SIZE)[..., 0] < 90 for seed in range(6)])
OTHERS = {"npy": lambda mask: as_npy(mask), "mask.png": lambda mask: encoded(mask.astype(np.uint8) * 7, "PNG")}


def as_npy(mask: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, mask)
    return file.getvalue()


def tars(path: Path, extension: str, masks: list[Any]) -> Path:
    members = [(f"{n:03}.{kind}", data) for n in range(6) for kind, data in (("jpg", FILES[n]), (extension, masks[n]))]
    return shard(path, [member for member in members if member[1] is not None])


@given(st.integers(1, 7), st.integers(2, 7), st.data(), st.integers(0, 2**32))
def test_patches_without_data_are_removed_first(rows: int, columns: int, data: st.DataObject, seed: int) -> None:
    """The rule, in sets: of R removed patches the first are without data, the next are the policy's."""
    grid, total = (rows, columns), rows * columns
    keep = data.draw(st.integers(1, total - 1), label="visible")
    share = data.draw(st.floats(0, 1), label="share without data")
    empty = np.random.default_rng(seed).random((3, *grid)) < share
    plain = random_masks(seed, np.arange(3), grid, keep)
    found = random_masks(seed, np.arange(3), grid, keep, empty=empty)
    assert ((found == 0).sum((1, 2)) == keep).all()
    for mask, policy, lost in zip(found == 1, plain == 1, empty, strict=True):
        removed = total - keep
        if lost.sum() <= removed:
            assert mask[lost].all()
            assert policy[mask & ~lost].all()
        else:
            assert lost[mask].all()
            assert mask[policy & lost].all()


def test_the_rest_is_random() -> None:
    """Ties are broken evenly: each of 15 empty patches of 16 stays visible in 5 of 15 masks, where 10 are removed."""
    empty = np.ones((4, 4), bool)
    empty[0, 0] = False
    rng, mask = np.random.Generator(np.random.Philox(0)), np.zeros((4, 4), np.uint8)
    mask.flat[0] = mask.flat[1:10] = 1
    kept = np.mean([remove_first(mask, empty, rng) for _ in range(4000)], 0)
    assert kept[0, 0] == 0
    assert (kept.flat[1:10] == 1).all()
    assert np.abs(kept.flat[10:] - 1 / 6).max() < 5 * (5 / 36 / 4000) ** 0.5


@pytest.mark.parametrize("channels", [1, 3])
@given(seed=st.integers(0, 2**32), position=st.integers(0, 10**9), cell=st.sampled_from([1, 2, 8]))
def test_a_mask_is_transformed_with_its_image(channels: int, seed: int, position: int, cell: int) -> None:
    """An image that is white where there is data: its pixels are the complement of its mask, wherever they go."""
    coarse = np.random.default_rng(seed).random((40 // cell, 56 // cell)) < 0.5
    image = np.where(coarse.repeat(cell, 0).repeat(cell, 1), 0, 255).astype(np.uint8)[..., None].repeat(channels, 2)
    feed = Feed(
        Stored(image, coarse), seed, channels, 1, 1, CropAndFlip((16, 24), (0.2, 1.0), 0.5), Masks(0, (2, 3), 2)
    )
    augmented, _, _ = feed.samples(np.array([position]))
    images, no_data = split(augmented, channels)
    assert no_data is not None
    np.testing.assert_allclose(images[..., 0] / 255, 1 - no_data, atol=tolerances.GREY_LEVEL)
    (plain,) = (feed.augment(image, feed._draws(position)),)
    np.testing.assert_array_equal(images[0], plain)


class Stored:
    """A source of one image and its mask."""

    classes, labels, fingerprint = (".",), [0], ""
    reading = open_source("digits").reading._replace(options=ReadOptions(mask_key="m"), uses=("mask_key",))

    def __init__(self, image: np.ndarray, cells: np.ndarray) -> None:
        self.image, self.cells = image, cells

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, str]:
        return self.image, 0, "stored"

    def mask(self, index: int) -> np.ndarray:
        return self.cells

    def name(self, index: int) -> str:
        return "stored"


def test_a_patch_is_empty_from_half_its_pixels_on() -> None:
    no_data = np.zeros((1, 4, 8))
    no_data[0, :2, :4] = no_data[0, 0, 4:] = 1
    no_data[0, 0, 7] = 0.9
    assert empty_patches(no_data, (1, 2)).tolist() == [[[True, False]]]


def test_every_container_can_hold_masks(tmp_path: Path) -> None:
    """The same masks from tars, parquet and npz; per pixel, or per square of 8 pixels."""
    coarse = MASKS[:, ::8, ::8]
    stored = {
        "npz": (arrays(tmp_path / "a.npz", images=np.stack([pixels(n) for n in range(6)]), m=MASKS), {"mask_key": "m"}),
        "coarse": (
            arrays(tmp_path / "b.npz", images=np.stack([pixels(n) for n in range(6)]), m=coarse),
            {"mask_key": "m"},
        ),
        "lists": (table(tmp_path / "c.parquet", m=MASKS.tolist()), {"mask_column": "m"}),
        "bytes": (table(tmp_path / "d.parquet", m=[as_npy(mask) for mask in MASKS]), {"mask_column": "m"}),
        "struct": (
            table(tmp_path / "e.parquet", m=[{"bytes": as_npy(m), "path": None} for m in MASKS]),
            {"mask_column": "m"},
        ),
    }
    for kind, write in OTHERS.items():
        stored[kind] = (tars(tmp_path / kind / "x.tar", kind, [write(mask) for mask in MASKS]), {"mask_key": kind})
    for name, (path, flags) in stored.items():
        source = open_source(str(path), options=ReadOptions(**flags))
        assert source.reading.masked
        assert not any("mask" in phrase for phrase in source.reading.left_out), name
        expected = coarse.repeat(8, 1).repeat(8, 2) if name == "coarse" else MASKS
        for index in range(6):
            image, _ = read_with_mask(source, index, 3)
            _, no_data = split(image, 3)
            np.testing.assert_array_equal(no_data, expected[index], err_msg=name)
        plain = open_source(str(path), options=ReadOptions(image_key="jpg" if ".tar" in str(path) else None))
        assert not plain.reading.masked
        assert plain.fingerprint != source.fingerprint
        assert read_with_mask(plain, 0, 3)[0].shape == (*SIZE, 3)


def test_a_known_listing_is_read_again_for_other_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    trust(monkeypatch)
    path = tars(tmp_path / "x.tar", "npy", [as_npy(mask) for mask in MASKS])
    for key in (None, "npy", "npy"):
        source = open_source(str(path), options=ReadOptions(mask_key=key))
        assert source.reading.masked == bool(key)
    assert json.loads(next((tmp_path / "cache").rglob("tar-*.json")).read_text())["mask"] == "npy"
    assert cache.load("tar", path) is not None
    np.testing.assert_array_equal(split(read_with_mask(source, 2, 3)[0], 3)[1], MASKS[2])


@pytest.mark.parametrize(
    ("mask", "line"),
    [
        (np.zeros((40, 55), bool), "its mask is 40 x 55, which does not divide the image's 40 x 56"),
        (np.zeros((56, 40), bool), "its mask is 56 x 40, which does not divide the image's 40 x 56"),
        (np.zeros((40, 56, 3), np.uint8), "its mask is uint8 (40, 56, 3), not bool or integers (height, width)"),
        (np.zeros((40, 56)), "its mask is float64 (40, 56), not bool or integers (height, width)"),
        (None, "has no mask"),
        ([[True], [True, False]], "its mask cannot be read (setting an array element with a sequence."),
        (b"no image", "its mask cannot be read (cannot identify image file"),
        (encoded(pixels(0)), "its mask cannot be read (JPEG changes values; store it as png or npy)"),
    ],
)
def test_what_is_no_mask_of_its_image_is_refused(mask: object, line: str) -> None:
    with pytest.raises(BrokenImage) as error:
        joined(pixels(0), mask, "x.tar: 000.jpg")
    assert str(error.value).startswith(f"x.tar: 000.jpg: {line}")


@pytest.fixture
def clouds(tmp_path: Path) -> Path:
    """An npz file of grey images with a coarse mask each, from none to all without data."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 16, 16), np.uint8)
    masks = rng.random((24, 4, 4)) < np.linspace(0, 1, 24)[:, None, None]
    return arrays(tmp_path / "clouds.npz", images=images, clouds=masks.astype(np.uint8), spare=np.zeros(3))


FLAGS = "--in_chans 1 --mask_key clouds --mask_policy block"


def test_a_run_says_what_its_masks_hold_and_is_exact(
    clouds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also with worker processes, interrupted and resumed; a reconstruction takes the masks from the run."""
    fake.train(clouds, tmp_path / "whole", *FLAGS.split(), "--epochs", "2")
    said = capsys.readouterr().out
    with np.load(clouds) as stored:
        counts = stored["clouds"].sum((1, 2))
    assert "left out: the array spare" in said
    assert (
        f"masks of the data, in 24 of 24 images: {counts.mean():.1f} of 16 patches have no data on average;"
        f" {(counts > 10).sum()} images have more such patches than the 10 that are removed, so some stay visible;"
        f" {(counts < 10).sum()} have fewer, so --mask_policy block removes others, too\n"
    ) in said
    fake.train(
        clouds, tmp_path / "cut", *FLAGS.split(), "--epochs", "2", "--worker_type", "process", "--stop_at_step", "3"
    )
    fake.train(clouds, tmp_path / "cut", *FLAGS.split(), "--epochs", "2")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    with pytest.raises(TrainError, match="the data is not what the run began with"):
        fake.train(clouds, tmp_path / "cut", "--in_chans", "1")


@pytest.mark.parametrize(
    ("backend", "kind", "more"), [("torch", "uint8", ""), ("jax", "float32", "--mean 128 --std 70")]
)
def test_a_real_run_on_masks_its_pictures_and_its_loss(
    clouds: Path, tmp_path: Path, backend: str, kind: str, more: str
) -> None:
    with np.load(clouds) as stored:
        arrays(clouds, **{**stored, "images": stored["images"].astype(kind)})
    flags = (
        f"{FLAGS} {more} --mask_policy importance --backend {backend} --max_steps 1 --picture_freq 1 --engine masked"
    )
    words = [*fake.QUICK.split(), "--data_path", str(clouds), "--output_dir", str(tmp_path / "run"), *flags.split()]
    assert main(words) == 0
    words = f"--task reconstruct --backend {backend} --finetune {tmp_path / 'run'} --output_dir {tmp_path / 'out'}"
    assert main(words.split()) == 0
    drawn, again = tmp_path / "run" / "pictures" / "step-00000001.png", tmp_path / "out" / "reconstruction-00.png"
    np.testing.assert_array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(drawn)))
    losses = [loss(tmp_path, backend, *flags) for flags in (("--batch_size", "7"), ("--mask_key", "none"), ())]
    assert losses[0] == pytest.approx(losses[2])
    assert losses[1] != pytest.approx(losses[2])


def loss(folder: Path, backend: str, *flags: str) -> float:
    """The masked loss of a run on all of its data."""
    words = f"--task eval --backend {backend} --finetune {folder / 'run'} --output_dir {folder / 'eval'}".split()
    assert main([*words, *flags]) == 0
    return float(json.loads((folder / "eval" / "eval.json").read_text())["masked_loss"])


def test_patches_without_data_are_removed_in_the_batch(clouds: Path) -> None:
    """Whole images, so that the mask's squares are the patches."""
    words = [*fake.QUICK.split(), "--data_path", str(clouds), *FLAGS.split(), "--crop_scale", "1", "1", "--hflip", "0"]
    batches = [Pretraining(cli.parse([*words, "--backend", name])).feed(24, 24, 1)(0)[0] for name in NAMES]
    assert batches[0]["images"].shape == (24, 16, 16, 1)
    for name, array in batches[0].items():
        assert array.tobytes() == batches[1][name].tobytes()
    with np.load(clouds) as stored:
        known = {image.tobytes(): mask for image, mask in zip(stored["images"], stored["clouds"], strict=True)}
    crops = 0
    for image, mask in zip(batches[0]["images"], batches[0]["mask"], strict=True):
        empty = known.get(image.tobytes())
        if empty is not None:  # ratios of crop_box leave a square image whole at times
            crops += 1
            assert mask[empty == 1].sum() == min(10, empty.sum())
    assert crops


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--mask_key fog", "--data_path .*: no array fog, which --mask_key names; it has images, clouds, spare"),
        ("--mask_key spare", r"--data_path .*: spare is float64\(3,\), not masks \(h, w\) of 24 images"),
        (
            "--mask_column clouds",
            "--mask_column clouds: is for parquet files, and there are none; give --mask_column none",
        ),
        (
            "--mask_key clouds --decode scaled",
            "--decode scaled: does not scale the masks of the data; give --decode exact",
        ),
    ],
)
def test_a_flag_that_cannot_be_followed_is_one_line(clouds: Path, flags: str, line: str) -> None:
    with pytest.raises(TrainError, match=f"^{line}"):
        Pretraining(cli.parse([*fake.QUICK.split(), "--in_chans", "1", "--data_path", str(clouds), *flags.split()]))


def test_images_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    """Values under a mask must be finite, too."""
    images = np.random.default_rng(0).normal(size=(8, 16, 16, 1)).astype(np.float32)
    images[3, 0, 0] = np.nan
    path = arrays(tmp_path / "x.npz", images=images, clouds=np.ones((8, 4, 4), np.uint8))
    words = [*fake.QUICK.split(), "--data_path", str(path), *FLAGS.split(), "--mean", "0", "--std", "1"]
    task = Pretraining(cli.parse(words))
    masks, note = task.summary()[-2:]
    assert masks.startswith("masks of the data, in 7 of 8 images: ")
    assert note.startswith(
        f"note: 1 of 8 images with their masks cannot be read; {path}: image 3: 1 of its 256 values are"
    )


def test_other_masks_of_the_same_size_are_other_data(tmp_path: Path) -> None:
    members = [("0.jpg", FILES[0]), ("0.a", as_npy(MASKS[0])), ("0.b", as_npy(MASKS[1]))]
    path = str(shard(tmp_path / "x.tar", members))
    prints = {key: open_source(path, options=ReadOptions(mask_key=key)).fingerprint for key in ("a", ".a", "b")}
    assert prints["a"] == prints[".a"] != prints["b"]


def test_an_image_without_its_mask_is_named(tmp_path: Path) -> None:
    path = tars(tmp_path / "x.tar", "npy", [as_npy(MASKS[0]), None, *map(as_npy, MASKS[2:])])
    with pytest.raises(TrainError, match=re.escape(f"{path}: 001.jpg: has no .npy file, which --mask_key names")):
        open_source(str(path), options=ReadOptions(mask_key="npy"))
    path = tars(tmp_path / "y.tar", "npy", list(map(as_npy, MASKS)))
    with pytest.raises(TrainError, match="--exif True: does not rotate the masks of the data; rotate the files, or"):
        Pretraining(cli.parse([*fake.QUICK.split(), *f"--data_path {path} --mask_key npy --exif True".split()]))
    path = table(tmp_path / "x.parquet")
    with pytest.raises(TrainError, match="no column clouds, which --mask_column names; it has image, label"):
        open_source(str(path), options=ReadOptions(mask_column="clouds"))
    folder = tree(tmp_path / "tree")
    with pytest.raises(TrainError, match="--mask_key npy: is for tar shards and npz files, and there are none"):
        Pretraining(cli.parse([*fake.QUICK.split(), "--data_path", str(folder), "--mask_key", "npy"]))
