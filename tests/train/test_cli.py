"""The command line: published spellings, one line for a mistake, files that read back."""

from pathlib import Path

import pytest

from train.__main__ import main
from train.config import Config, cli
from train.config.recipes import DIGITS, DIGITS_IMAGES, DIGITS_MODEL
from train.errors import TrainError


def test_a_released_command_means_what_it_meant() -> None:
    words = (
        "--model convnextv2_base --batch_size 64 --update_freq 8 --blr 1.5e-4 --epochs 1600 --warmup_epochs 40"
        " --data_path /images --output_dir /out --auto_resume True --norm_pix_loss true --save_ckpt 1"
    )
    config = cli.parse(words.split())
    assert config == Config.from_flags(
        update_freq=8, epochs=1600, data_path="/images", output_dir="/out", auto_resume=True, save_ckpt=True
    )
    assert config.effective_batch == 512
    assert config.peak_lr == 1.5e-4 * 512 / 256


@pytest.mark.parametrize(("word", "value"), [("True", True), ("true", True), ("1", True), ("0", False)])
def test_switches_are_spelt_as_published(word: str, value: bool) -> None:
    assert cli.parse(["--auto_resume", word]).checkpoints.auto_resume is value


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--epoch 5", "--epoch: no such flag; did you mean '--epochs'?"),
        ("--warmup-epochs 5", "--warmup-epochs: no such flag; did you mean '--warmup_epochs'?"),
        ("--batchsize=5", "--batchsize: no such flag; did you mean '--batch_size'?"),
        ("--qqqqq 5", "--qqqqq: no such flag; python -m train --help lists them"),
        ("stray", "stray: a value without a flag; python -m train --help lists the flags"),
        ("--epochs many", "--epochs: 'many' is not a whole number"),
        ("--blr fast", "--blr: 'fast' is not a number"),
        ("--blr nan", "--blr: nan is below 0"),
        ("--save_ckpt maybe", "--save_ckpt: 'maybe' is not True or False"),
        ("--backend tensorflow", "--backend: 'tensorflow' is unknown; choose torch or jax"),
        ("--batch_size 0", "--batch_size: 0 is below 1"),
        ("--epochs", "--epochs: expected one argument"),
        ("--input_size 1 2 3", "--input_size: (1, 2, 3) is neither a side nor height and width"),
        ("--crop_scale 0.5 0.2", "--crop_scale: (0.5, 0.2) is no range inside 0..1; the published one is 0.2 1.0"),
        ("--mean 1 2", "--mean: 2 values for 1 channels; give one each, or one"),
        ("--std 0", "--std: (0.0,) holds a zero, by which no pixel can be divided"),
        ("--mask_ratio 1", "mask_ratio: 1.0 is not between 0 and 1"),
        ("--input_size 30", "image_size: the height 30 is no multiple of the patch, 8 pixels; try 24 or 32"),
        ("--model convnextv2_nona", "preset: 'convnextv2_nona' is unknown"),
        ("--data_path /no/such/folder", "--data_path /no/such/folder: no such folder"),
        ("--batch_size 4096", "--batch_size 4096 x --update_freq 1: an update takes 4,096 images, the data has 1,442"),
    ],
)
def test_a_mistake_ends_in_one_line(words: str, line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*words.split(), "--output_dir", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"train: {line}")
    assert said.err.count("\n") == 1


def test_help_is_grouped_and_fits_two_screens(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"Run:", "Checkpoints:", "Images:", "Model:", "Optimisation:"} <= set(lines)
    assert len(lines) < 90
    assert max(map(len, lines)) <= 120


def test_the_digits_have_a_recipe_and_folders_the_published_values() -> None:
    recipe = DIGITS_IMAGES | DIGITS_MODEL | DIGITS["pretrain"]
    assert {name: value for name, value in cli.parse([]).flags().items() if name in recipe} == recipe
    assert cli.parse(["--data_path", "/images"]) == Config.from_flags(data_path="/images")


def test_a_named_model_replaces_the_sizes_of_the_recipe() -> None:
    config = cli.parse(["--model", "convnextv2_atto"])
    found = config.model
    assert (found.model, found.depths, found.dims, found.patch_size) == ("convnextv2_atto", None, None, 8)


def test_a_written_configuration_reads_back_and_flags_win_over_it(tmp_path: Path) -> None:
    words = "--lr 1e-05 --depths 1 2 --dims 8 16 --clip_grad 1 --save_ckpt 0 --output_dir"
    config = cli.parse([*words.split(), 'a "b"'])
    file = tmp_path / "config.toml"
    file.write_text(config.to_toml())
    assert cli.parse(["--config", str(file)]) == config
    assert cli.parse(["--config", str(file), "--seed", "7"]).run.seed == 7


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("epoch = 5", "--epoch: no such flag; did you mean '--epochs'?"),
        ("epochs = 'many'", "--epochs: 'many' is not a whole number"),
        ("epochs", "--config "),
    ],
)
def test_a_mistake_in_a_file_is_reported_like_one_on_the_command_line(tmp_path: Path, text: str, line: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(TrainError) as error:
        cli.parse(["--config", str(file)])
    assert str(error.value).startswith(line)
