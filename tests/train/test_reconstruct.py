"""`--task reconstruct`: from any checkpoint with a decoder, the same pictures in both frameworks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import backends
import spec
from backends.initial import initial_arrays
from backends.protocol import State
from convert.models import describe
from tests.train.images import encoded, pixels, tree
from train.__main__ import main
from train.checkpoints import store
from train.config import cli
from train.errors import TrainError
from train.report.pictures import GAP, LABEL, MARGIN, REMOVED
from train.tasks.images import open_images
from train.tasks.weights import autoencoder

GOLDEN = Path(__file__).parents[2] / "parity_tests" / "golden"
FCMAE, CLASSIFIER = GOLDEN / "official_fcmae.pth", GOLDEN / "official_classifier.pth"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"), classes=2, each=5)


def reconstruct(out: Path, *flags: str) -> list[np.ndarray]:
    """The pictures that a command writes."""
    words = ["--task", "reconstruct", "--input_size", "64", "--output_dir", str(out), *flags]
    assert main(words) == 0
    return [np.asarray(Image.open(file)) for file in sorted(out.glob("*.png"))]


def test_both_frameworks_draw_the_same_pictures(images: Path, tmp_path: Path) -> None:
    flags = ("--finetune", str(FCMAE), "--data_path", str(images), "--num_images", "2")
    ((ours,), (theirs,)) = (reconstruct(tmp_path / name, *flags, "--backend", name) for name in backends.NAMES)
    assert np.abs(ours.astype(int) - theirs).max() <= 1  # a pixel may round the other way


def test_the_last_picture_of_a_run_can_be_had_again(images: Path, tmp_path: Path) -> None:
    words = (
        "--parity_check False --model none --depths 1 1 --dims 8 16 --decoder_embed_dim 8 --patch_size 4"
        " --input_size 16 --batch_size 5 --epochs 2 --warmup_epochs 1 --mask_ratio 0.4 --seed 3 --backend torch"
        " --mask_policy importance"
    )
    assert main([*words.split(), "--data_path", str(images), "--output_dir", str(tmp_path / "run")]) == 0
    flags = ["--task", "reconstruct", "--backend", "torch", "--seed", "3", "--output_dir", str(tmp_path / "out")]
    assert main([*flags, "--finetune", str(tmp_path / "run")]) == 0
    drawn, again = tmp_path / "run" / "pictures" / "step-00000004.png", tmp_path / "out" / "reconstruction-00.png"
    np.testing.assert_array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(drawn)))


def test_eight_images_fill_a_sheet_and_no_two_have_the_same_mask(images: Path, tmp_path: Path) -> None:
    files = [str(images / "c0" / "0.jpg")] * 10
    first, second = reconstruct(tmp_path, "--finetune", str(FCMAE), "--backend", "torch", "--images", *files)
    assert first.shape[1] - second.shape[1] == 6 * (128 + GAP)
    column = slice(0, MARGIN + LABEL + 128)
    assert (first[:128, column] == second[:128, column]).all()
    assert (first[:, column] != second[:, column]).any()


def test_named_files_seed_and_ratio_are_what_is_drawn(images: Path, tmp_path: Path) -> None:
    Image.fromarray(pixels(7, 90, 70)).save(tmp_path / "mine.png")
    files = [str(tmp_path / "mine.png"), str(images / "c0" / "0.jpg"), str(tmp_path / "broken.jpg")]
    Path(files[2]).write_bytes(encoded(pixels(1))[:99])
    flags = ("--backend", "torch", "--resume", str(FCMAE), "--images", *files)
    (sheet,) = reconstruct(tmp_path / "a", *flags)
    (again,) = reconstruct(tmp_path / "b", *flags)
    np.testing.assert_array_equal(sheet, again)
    for change in (("--seed", "1"), ("--mask_ratio", "0.3"), ("--norm_pix_loss", "False"), ("--grn_scope", "batch")):
        (other,) = reconstruct(tmp_path / "c", *flags, *change)
        assert other.shape == sheet.shape
        assert (other != sheet).any(), change
    (fewer,) = reconstruct(tmp_path / "d", *flags, "--mask_ratio", "0.3")
    assert np.all(sheet == REMOVED, -1).sum() > np.all(fewer == REMOVED, -1).sum() > 0


def test_given_values_override_what_the_file_says(tmp_path: Path) -> None:
    model = spec.fcmae(
        depths=(1,), dims=(4,), patch_size=4, image_size=16, decoder_dim=4, grn_scope="batch", norm_target=False
    )
    path = str(
        store.save(tmp_path, 1, State(initial_arrays(model, 0)), {"identity": {"model": describe(model)}}, keep=1)
    )
    words = ["--task", "reconstruct", "--finetune", path, "--input_size", "16"]
    for more, scope, normalised in (
        ([], "batch", False),
        (["--grn_scope", "image", "--norm_pix_loss", "True"], "image", True),
    ):
        found, _ = autoencoder(cli.parse([*words, *more]), path)
        assert (found.encoder.grn_scope, found.norm_target) == (scope, normalised)
    with pytest.raises(TrainError, match="--num_images: is for images of --data_path"):
        open_images(cli.parse([*words, "--images", "a.jpg", "--num_images", "3"]))


def test_a_run_says_itself_what_its_images_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--depths 1 1 --dims 4 8 --decoder_embed_dim 4 --patch_size 4 --input_size 16 --mask_ratio 0.4 --output_dir"
    config = cli.parse([*words.split(), str(tmp_path)])
    model = spec.fcmae(
        depths=(1, 1),
        dims=(4, 8),
        in_chans=1,
        patch_size=4,
        image_size=16,
        decoder_dim=4,
        mask_ratio=0.4,
        mask_rounding="ceil",
    )
    meta = {"identity": {"model": describe(model)}, "config": config.as_dict()}
    path = store.save(tmp_path / "checkpoints", 1, State(initial_arrays(model, 0)), meta, keep=1)
    for place in (tmp_path, path):
        for more in ([], ["--images", str(_grey(tmp_path))]):
            resolved = cli.read(["--task", "reconstruct", "--finetune", str(place), *more])
            found = resolved.config
            expected = {"input_size": (16,), "in_chans": 1, "mask_ratio": 0.4, "data_path": "digits"}
            assert found.flags().items() >= expected.items()
            assert resolved.origins["mask_ratio"] == f"the run of {place}"
            assert found.run.output_dir == ""
    assert (
        cli.read(["--task", "reconstruct", "--finetune", str(tmp_path), "--mask_ratio", "0.5"]).config.model.mask_ratio
        == 0.5
    )
    assert main(["--task", "reconstruct", "--finetune", str(path), "--output_dir", str(tmp_path / "out")]) == 0
    assert "10 of 16 patches visible" in capsys.readouterr().out


def _grey(folder: Path) -> Path:
    file = folder / "grey.png"
    Image.fromarray(pixels(3)[..., 0]).save(file)
    return file


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "--task reconstruct: give the checkpoint with --finetune or --resume"),
        ("--finetune {classifier} --images {image}", "{classifier}: has no decoder"),
        ("--finetune {folder}/none.pth", "{folder}/none.pth: no such file or folder"),
        ("--finetune {fcmae} --in_chans 1", "--in_chans 1: the model in {fcmae} takes 3; leave it out, or change the"),
        ("--finetune {fcmae} --input_size 64", "--in_chans 3: digit 0 has 1 channels; give --in_chans 1"),
        ("--finetune {fcmae} --images {folder}/*.gif", "--images {folder}/*.gif: no file matches this pattern"),
        ("--finetune {fcmae} --images none.png", "--images none.png: no such file"),
        ("--finetune {fcmae} --images {broken}", "--images: none of the 1 images can be read"),
        ("--finetune {fcmae} --images {image} --input_size 50", "image_size: the height 50 is no multiple"),
        ("--finetune {fcmae} --images {image} --mask_ratio 1", "mask_ratio: 1.0 is not between 0 and 1"),
    ],
)
def test_a_mistake_is_one_line(
    images: Path, tmp_path: Path, words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    places = {"classifier": CLASSIFIER, "fcmae": FCMAE, "folder": images, "image": images / "c0" / "1.jpg"}
    places["broken"] = tmp_path / "broken.jpg"
    flags = words.format(**places).split()
    assert main(["--task", "reconstruct", "--backend", "torch", "--output_dir", str(tmp_path / "out"), *flags]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"train: {line.format(**places)}")
    assert said.count("\n") == 1
