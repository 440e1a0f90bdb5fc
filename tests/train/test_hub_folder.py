"""A run's folder for transformers: classes, image size, image processor, card; its pipeline gives our probabilities."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

import convert
from benchmarks import outside
from convert.__main__ import main as convert_main
from parity_tests.tolerances import EPS, assert_close
from tests.train.images import pixels, tree
from train.__main__ import main
from train.config import cli

WORDS = (
    "--task finetune --model none --depths 1 1 1 1 --dims 8 8 8 8 --patch_size 32 --batch_size 6 --max_steps 2"
    " --warmup_epochs 0 --lr 1e-2 --head_init_scale 1 --aa none --reprob 0 --num_workers 1 --backend torch"
    " --input_size 32 --mean 0.3 0.4 0.5 --std 0.2 0.3 0.4 --crop_pct 0.8"
)
SIZE, CROP, MEAN, STD = (32, 32), 0.8, (0.3, 0.4, 0.5), (0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finetuned")
    for split in ("train", "val"):
        tree(root / "data" / split, classes=3, each=4)
    words = [*WORDS.split(), "--data_path", str(root / "data"), "--output_dir", str(root / "run")]
    assert main(words) == 0
    return root / "run"


@pytest.fixture(scope="module")
def folder(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hub") / "my-model"
    assert convert_main(["translate", str(run_dir), "--to", "hf", "-o", str(made)]) == 0
    return made


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """Resized by the crop's share to 40 x 50: its margins are even, so no library rounds the crop another way."""
    return Image.fromarray(pixels(7, 64, 80))


def predicted(checkpoint: Path, picture: Image.Image, folder: Path) -> np.ndarray:
    """The probabilities of c0, c1, c2 by --task predict, on the image in a file."""
    picture.save(folder / "x.png")
    (folder / "x.csv").unlink(missing_ok=True)
    words = ["--task", "predict", "--finetune", str(checkpoint), "--images", str(folder / "x.png")]
    assert main([*words, "--output", str(folder / "x.csv"), "--backend", "torch"]) == 0
    with (folder / "x.csv").open() as file:
        rows = {row["name"]: float(row["probability"]) for row in csv.DictReader(file)}
    return np.array([rows[f"c{i}"] for i in range(3)])


def test_transformers_gives_the_probabilities_of_predict(
    run_dir: Path, folder: Path, picture: Image.Image, tmp_path: Path
) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

    expected = predicted(run_dir, picture, tmp_path)
    assert expected.max() - expected.min() > 0.01  # not the same for every class
    model = AutoModelForImageClassification.from_pretrained(folder)
    inputs = AutoImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")
    found = model(**inputs).logits.softmax(-1)[0].detach().numpy()
    assert_close(found, expected, 64 * EPS["float32"], "model and processor")
    classify = pipeline("image-classification", model=str(folder))
    answers = {one["label"]: one["score"] for one in classify(str(tmp_path / "x.png"))}
    assert_close(np.array([answers[f"c{i}"] for i in range(3)]), expected, 64 * EPS["float32"], "pipeline")
    assert model.config.image_size == 32


def test_the_folder_is_read_back_with_its_preparation(folder: Path, tmp_path: Path, picture: Image.Image) -> None:
    """Without our own header, as others write such folders, and as a checkpoint of a task."""
    from safetensors.numpy import load_file, save_file

    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (bare / name).write_bytes((folder / name).read_bytes())
    save_file(load_file(folder / "model.safetensors"), bare / "model.safetensors")
    found = convert.load(bare)
    assert (found.classes, found.notes) == (["c0", "c1", "c2"], [])
    assert_close(predicted(bare, picture, tmp_path), predicted(folder, picture, tmp_path), 0.0, "as read back")
    config = cli.parse(["--task", "eval", "--finetune", str(bare), "--data_path", "D"])
    assert (config.data.image_size, config.data.mean, config.data.std) == (SIZE, MEAN, STD)
    assert config.finetune.crop_pct == CROP


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"resample": 2}, "only its mean and std are used: it is ConvNextImageProcessor, resample 2"),
        ({"image_processor_type": "ViTImageProcessor"}, "only its mean and std are used: it is ViTImageProcessor"),
    ],
)
def test_an_image_processor_that_is_not_followed_is_noted(
    change: dict[str, object], note: str, folder: Path, tmp_path: Path
) -> None:
    convert.save(convert.load(folder), tmp_path / "x", format="hf")
    file = tmp_path / "x" / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    found = convert.load(tmp_path / "x")
    assert [line.endswith(note) for line in found.notes] == [True]
    assert found.meta["images"] == {"mean": list(MEAN), "std": list(STD)}


def test_the_card_says_what_the_run_knows(run_dir: Path, folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: image-classification\n")
    assert "\n# license: " in card
    scores = convert.load(run_dir).meta["scores"]
    for line in (
        "# my-model",
        "| classes | 3: c0, c1, c2 |",
        "| image size | 32 x 32 px |",
        "| normalisation | mean 0.3 0.4 0.5, std 0.2 0.3 0.4, in units of 0..1 |",
        f"| data | {run_dir.parent / 'data'} |",
        f"| scores on the validation images | acc1 {scores['acc1']:.4g}, ",
        "| versions | python ",
    ):
        assert f"\n{line}" in card, card
    assert "| command | `twinnext train --task finetune " in card
    assert "--lr 0.01" in card
    assert ModelCard.load(folder / "README.md").data.tags == ["convnextv2", "twinnext"]


def test_the_command_of_the_card_makes_the_same_config(run_dir: Path) -> None:
    import shlex

    saved = convert.load(run_dir).meta
    _, _, *words = shlex.split(saved["command"])
    again = cli.parse([*words, "--auto_resume", "False"]).as_dict() | {"auto_resume": True}
    assert again == saved["config"]


def test_force_replaces_such_a_folder(run_dir: Path, folder: Path) -> None:
    assert convert_main(["translate", str(run_dir), "--to", "hf", "-o", str(folder), "--force"]) == 0


def test_the_folder_of_timm_prepares_images_in_the_same_way(run_dir: Path, tmp_path: Path) -> None:
    convert.save(convert.load(run_dir, weights_only=True), tmp_path / "x", format="timm")
    model = outside.timm().create_model(f"local-dir:{tmp_path / 'x'}", pretrained=True).eval()
    config = model.pretrained_cfg
    ours = {"input_size": [3, 32, 32], "mean": [*MEAN], "std": [*STD], "crop_pct": CROP, "crop_mode": "center"}
    assert config.items() >= (ours | {"interpolation": "bicubic"}).items()
    assert config["label_names"] == ["c0", "c1", "c2"]


def test_what_no_image_processor_can_do_is_noted(tmp_path: Path) -> None:
    import spec
    from tests.convert.samples import checkpoint

    grey = checkpoint(spec.classifier(depths=(1, 1), dims=(4, 8), in_chans=1, num_classes=2))
    (note,) = convert.save(grey, tmp_path / "x", format="hf")
    assert note.startswith("no preprocessor_config.json: transformers' image processors are for square RGB images")
    assert not (tmp_path / "x" / "preprocessor_config.json").exists()
    coloured = checkpoint(spec.classifier(depths=(1, 1), dims=(4, 8), num_classes=2))
    (note,) = convert.save(coloured, tmp_path / "y", format="hf")
    assert note == "preprocessor_config.json has ImageNet's mean and std, 224 px: the checkpoint records no others"
