"""Images that are arrays: what tifffile, imagecodecs, numpy and pyarrow write is read to the bit, or refused."""

import io
import json
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow
import pytest
import tifffile
from PIL import Image
from pyarrow import parquet

from tests.train.images import encoded, pixels
from tests.train.shards import arrays, shard
from train.data.classes import describe
from train.data.decode import BrokenImage, Decoding, decode
from train.data.feed import read
from train.data.sources import open_source
from train.data.values import Values
from train.errors import TrainError

NOISE = np.random.default_rng(0)
BANDS = NOISE.integers(0, 65536, (9, 7, 12), np.uint16)
"""(H, W, C)"""

CONTIGUOUS: dict[str, Any] = {"planarconfig": "contig", "photometric": "minisblack"}
FIRST, LAST = Decoding(channel_axis="first"), Decoding(channel_axis="last")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tiff(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def chw(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize(
    "data",
    {
        "samples": lambda array: tiff(array, **CONTIGUOUS),
        "planes": lambda array: tiff(chw(array), planarconfig="separate", photometric="minisblack"),
        "pages": lambda array: tiff(chw(array)),
        "deflate": lambda array: tiff(array, compression="zlib", predictor=True, **CONTIGUOUS),
        "lzw, big-endian": lambda array: tiff(array, compression="lzw", byteorder=">", **CONTIGUOUS),
        "bigtiff, tiles": lambda array: tiff(array, bigtiff=True, tile=(16, 16), **CONTIGUOUS),
        "npy": npy,
        "npy, channels first": lambda array: npy(chw(array)),
        "npy, big-endian": lambda array: npy(array.astype(array.dtype.newbyteorder(">"))),
    }.items(),
    ids=lambda item: item[0],
)
def test_every_layout_and_type_is_read_to_the_bit(data: tuple[str, Any], dtype: str) -> None:
    array = BANDS.astype(dtype)
    found = decode(data[1](array), 12)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


def test_named_channels_need_no_number() -> None:
    np.testing.assert_array_equal(decode(tiff(BANDS, **CONTIGUOUS), None), BANDS)
    microscope = tiff(chw(BANDS[..., :3]), imagej=True, metadata={"axes": "CYX"})
    np.testing.assert_array_equal(decode(microscope, 3), BANDS[..., :3])


@pytest.mark.parametrize("data", [npy, tiff])
def test_an_axis_that_could_be_either_is_asked_for(data: Any) -> None:
    cube = BANDS[:7, :, :7]
    with pytest.raises(TrainError, match=r"the shape \(7, 7, 7\) .*; give --channel_axis first or --channel_axis last"):
        decode(data(cube), 7)
    np.testing.assert_array_equal(decode(data(cube), 7, how=LAST), cube)
    np.testing.assert_array_equal(decode(data(cube), 7, how=FIRST), np.moveaxis(cube, 0, -1))


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (npy(BANDS), "has 9 channels; give --in_chans 9"),
        (tiff(BANDS, **CONTIGUOUS), "has 12 channels; give --in_chans 12"),
        (tiff(BANDS[..., :4].astype(np.uint8), photometric="rgb", extrasamples=[0]), "has 4 channels"),
        (npy(np.zeros((2, 3, 4, 5), np.uint8)), r"its shape \(2, 3, 4, 5\) is neither"),
        (npy(np.array(None)), "Object arrays cannot be loaded"),
        (npy(BANDS)[:-8], "expected 1512 bytes got 1504"),
        (tiff(BANDS, **CONTIGUOUS)[:-200], "damaged TIFF"),
        (tiff(np.stack([BANDS[..., :3]] * 5), photometric="rgb"), r"its shape \(5, 9, 7, 3\) is neither"),
    ],
)
@pytest.mark.parametrize("channels", [3, 5])
def test_what_does_not_fit_is_one_line(data: bytes, line: str, channels: int) -> None:
    with pytest.raises(BrokenImage, match=line) as error:
        decode(data, channels)
    assert "\n" not in str(error.value)


def test_transparency_is_kept_for_two_and_four_channels() -> None:
    for mode in ("LA", "RGBA"):
        image = Image.fromarray(np.dstack([pixels(0), pixels(1)[..., 0]])).convert(mode)
        found = decode(encoded(np.asarray(image), "PNG", mode), len(mode))
        np.testing.assert_array_equal(found, np.asarray(image))
        np.testing.assert_array_equal(found, decode(encoded(np.asarray(image), "PNG", mode), None))
    with pytest.raises(BrokenImage, match="has 3 channels; give --in_chans 3"):
        decode(encoded(pixels(0), "PNG"), 4)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_deep_pngs_keep_their_bits(channels: int) -> None:
    deep = np.ascontiguousarray(BANDS[..., :channels])
    np.testing.assert_array_equal(decode(imagecodecs.png_encode(deep), channels), deep)


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_deep_jpeg_2000_is_not_scaled(bits: int, channels: int) -> None:
    deep = np.squeeze(BANDS[..., :channels] >> (16 - bits))
    data = imagecodecs.jpeg2k_encode(deep, level=0, reversible=True, codecformat="jp2", bitspersample=bits)
    np.testing.assert_array_equal(decode(data, channels), deep.reshape(9, 7, channels))


def test_grey_of_sixteen_bits_serves_three_channels() -> None:
    for data in (encoded(BANDS[..., 0], "PNG"), tiff(BANDS[..., 0])):
        np.testing.assert_array_equal(decode(data, 3), BANDS[..., :1].repeat(3, -1))
        with pytest.raises(BrokenImage, match="has 1 channels; give --in_chans 1"):
            decode(data, 5)


def test_rotations_that_are_not_applied_are_refused() -> None:
    turned = tiff(BANDS, extratags=[(274, 3, 1, 6, True)], **CONTIGUOUS)
    np.testing.assert_array_equal(decode(turned, 12), BANDS)
    with pytest.raises(BrokenImage, match="--exif: is not applied"):
        decode(turned, 12, how=Decoding(exif=True))


def test_large_tiffs_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(BrokenImage, match="its 9 x 12 pixels exceed 100; raise --max_image_pixels"):
        decode(tiff(BANDS, **CONTIGUOUS), 12, how=Decoding(max_pixels=100))


def test_without_tifffile_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(BrokenImage, match=r"needs tifffile to be read; pip install 'twinnext\[arrays\]'"):
        decode(tiff(BANDS, **CONTIGUOUS), 12)
    np.testing.assert_array_equal(decode(encoded(pixels(0), "TIFF"), 3), pixels(0))


@pytest.mark.parametrize(
    ("dtype", "bits", "text"),
    [
        ("uint8", None, "uint8 0..255"),
        ("uint16", None, "uint16 0..65535"),
        ("uint16", 12, "uint16 0..4095"),
        ("int16", 12, "int16 as is"),
        ("float32", None, "float32 as is"),
        ("float64", None, "float64 as is, rounded to float32"),
    ],
)
def test_values_have_a_range_or_are_taken_as_they_are(dtype: str, bits: int | None, text: str) -> None:
    values = Values.of(np.dtype(dtype), bits)
    assert str(values) == text
    image = (BANDS >> 4 if bits else BANDS).astype(dtype)
    found = values.scaled(image)
    if dtype == "uint8":
        assert found is image
    else:
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, image.astype(np.float32) / np.float32(values.top or 1))


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BrokenImage, match="its values reach 4,096, more than --image_bits 12 allows; leave it out"):
        Values.of(np.dtype("uint16"), 12).scaled(np.full((2, 2, 1), 4096, np.uint16))
    for wrong in (np.nan, np.inf):
        with pytest.raises(BrokenImage, match="1 of its 4 values are NaN or infinite"):
            Values.of(np.dtype("float32")).scaled(np.array([[[0.0], [wrong]], [[1], [2]]], np.float32))
    with pytest.raises(BrokenImage, match="holds uint32; convert it to one of uint8, uint16"):
        Values.of(np.dtype("uint32"))
    with pytest.raises(BrokenImage, match="holds uint8, the first image uint16; convert all images to one type"):
        Values.of(np.dtype("uint16")).scaled(np.zeros((2, 2, 1), np.uint8))


def folder(root: Path, suffix: str, make: Any, count: int = 4) -> list[np.ndarray]:
    """Images of 12 bands in two classes; returns them."""
    made = [np.roll(BANDS, number, 0) for number in range(count)]
    for number, array in enumerate(made):
        (root / f"c{number % 2}").mkdir(parents=True, exist_ok=True)
        (root / f"c{number % 2}" / f"{number}{suffix}").write_bytes(make(array))
    return [*made[::2], *made[1::2]]


@pytest.mark.parametrize(("suffix", "make"), [(".npy", npy), (".tif", tiff)])
def test_folders_and_tars_of_arrays(tmp_path: Path, suffix: str, make: Any) -> None:
    expected = folder(tmp_path / "images", suffix, lambda array: make(chw(array)))
    files = sorted((tmp_path / "images").rglob(f"*{suffix}"))
    members = [(f"{number:03}{suffix}", file.read_bytes()) for number, file in enumerate(files)]
    for path in (tmp_path / "images", shard(tmp_path / "x.tar", members)):
        source = open_source(str(path))
        assert source.reading.values == Values("uint16", 65535)
        for index, array in enumerate(expected):
            image, _ = read(source, index, 12)
            np.testing.assert_array_equal(image, array / np.float32(65535))


def test_npy_files_beside_images_are_left_out(tmp_path: Path) -> None:
    folder(tmp_path / "images", ".npy", npy)
    (tmp_path / "images" / "c0" / "a.png").write_bytes(encoded(pixels(0), "PNG"))
    source = open_source(str(tmp_path / "images"))
    assert len(source) == 1
    assert "4 .npy files beside images (c0/0.npy, c0/2.npy, c1/1.npy, ...)" in describe(source)
    members = [("0.png", encoded(pixels(0), "PNG")), ("0.npy", npy(BANDS))]
    assert open_source(str(shard(tmp_path / "x.tar", members))).name(0).endswith("0.png")


def test_transparency_is_told_of(tmp_path: Path) -> None:
    clear = np.dstack([pixels(0), pixels(1)[..., 0]])
    (tmp_path / "a.png").write_bytes(encoded(clear, "PNG"))
    source = open_source(str(tmp_path))
    assert "the first image has transparency, which --in_chans 1 and 3 drop" in describe(source)
    np.testing.assert_array_equal(read(source, 0, 4)[0], clear)
    np.testing.assert_array_equal(read(source, 0, 3)[0], clear[..., :3])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("first", [False, True])
def test_npz_and_parquet_of_arrays(tmp_path: Path, dtype: str, first: bool) -> None:
    images = np.stack([BANDS, BANDS[::-1]]).astype(dtype)
    stored = np.moveaxis(images, -1, 1) if first else images
    nested = pyarrow.array(stored.tolist(), pyarrow.list_(pyarrow.list_(pyarrow.list_(pyarrow.type_for_alias(dtype)))))
    features = {"image": {"shape": [9, 7, 12], "dtype": dtype, "_type": "Array3D"}}
    table = pyarrow.table({"image": nested, "label": [0, 1]})
    described = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(described, tmp_path / "x.parquet")
    for path in (arrays(tmp_path / "x.npz", images=stored, labels=np.arange(2)), tmp_path / "x.parquet"):
        source = open_source(str(path))
        assert source.reading.values.dtype == dtype
        for index, image in enumerate(images):
            found, label = read(source, index, 12)
            assert label == index
            np.testing.assert_array_equal(found, source.reading.values.scaled(image))


@pytest.mark.parametrize(
    ("cells", "line"),
    [
        ([[[1, 2], [3]]], "row 0 of row group 0: its rows have different lengths"),
        ([[[1, None], [3, 4]]], "row 0 of row group 0: is null, or holds nulls"),
        ([None], "row 0 of row group 0: is null, or holds nulls"),
    ],
)
def test_nested_lists_that_are_no_array_are_one_line(tmp_path: Path, cells: list[Any], line: str) -> None:
    column = pyarrow.array(cells, pyarrow.list_(pyarrow.list_(pyarrow.uint16())))
    parquet.write_table(pyarrow.table({"image": column}), tmp_path / "x.parquet")
    with pytest.raises(BrokenImage, match=line):
        read(open_source(str(tmp_path / "x.parquet")), 0, 1)


def test_a_type_that_is_not_read_is_one_line(tmp_path: Path) -> None:
    path = arrays(tmp_path / "x.npz", images=np.zeros((2, 4, 4), np.int64))
    with pytest.raises(TrainError, match=r"x\.npz: image 0: holds int64; convert it to one of uint8, "):
        open_source(str(path))
