"""The command line: published spellings, one line for a mistake, files that read back."""

import re
from pathlib import Path

import pytest

from train.__main__ import main
from train.config import Config, cli
from train.config.config import FLAGS
from train.config.recipes import DIGITS, DIGITS_IMAGES, DIGITS_MODEL, TASKS
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
    assert len(lines) <= 110  # two screens of 55
    assert max(map(len, lines)) <= 120


def test_the_digits_have_a_recipe_and_folders_the_published_values() -> None:
    recipe = DIGITS_IMAGES | DIGITS_MODEL | DIGITS["pretrain"]
    assert {name: value for name, value in cli.parse([]).flags().items() if name in recipe} == recipe
    assert cli.parse(["--data_path", "/images"]) == Config.from_flags(data_path="/images")


@pytest.mark.parametrize("data", ["/data/birds/*.tar", "/data/birds/part-*/x[0-9].tar", "/data/birds"])
def test_the_default_run_directory_holds_no_pattern(data: str) -> None:
    assert cli.parse(["--data_path", data, "--backend", "torch"]).run_dir == Path("runs/birds-torch")


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


UNUSED = {
    "pretrain": "--finetune /nonexistent.pth|--drop_path 0.1|--mixup 0.8|--model_ema True|--layer_decay 0.9"
    "|--reprob 0.1|--train_labels 9|--nb_classes 3|--eval_data_path D|--images a.jpg|--knn_k 5",
    "finetune": "--mask_ratio 0.5|--decoder_depth 2|--norm_pix_loss False|--knn_k 5|--picture_freq 1|--against a"
    "|--init_from x|--drop_last False",
    "eval": "--images a.jpg|--train_labels 9|--epochs 3|--mixup 0.8|--decoder_depth 2|--output x.csv",
    "predict": "--mask_ratio 0.5|--nb_classes 3|--stages 1|--output_dir x|--eval_data_path D|--seed 3",
    "embed": "--mask_ratio 0.5|--nb_classes 3|--output_dir x|--eval_data_path D|--seed 3|--engine masked",
    "reconstruct": "--crop_pct 0.9|--nb_classes 3|--against a|--decoder_depth 2|--kernels plain",
    "analyse": "--mask_ratio 0.5|--engine masked|--seed 3|--compilation_cache off|--kernels plain",
    "probe": "--images a.jpg|--mask_ratio 0.5|--model_ema_eval True|--kernels plain",
}


@pytest.mark.parametrize(
    ("task", "words"), [(task, words) for task, text in UNUSED.items() for words in text.split("|")]
)
def test_a_flag_of_another_task_is_refused(
    task: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--task", task, *words.split(), "--output_dir", str(tmp_path / "run")]) == 2
    flag, said = words.split()[0], capsys.readouterr().err
    users = ", ".join(FLAGS[flag.removeprefix("--")].tasks)
    assert said == f"train: {flag}: --task {task} does not use it, only {users}; leave it out\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["True", "False"])
def test_jax_refuses_compile_and_an_older_run_with_it_is_read(value: str, tmp_path: Path) -> None:
    with pytest.raises(TrainError) as error:
        cli.parse(["--backend", "jax", "--compile", value])
    line = f"--compile {value}: is for torch, JAX always compiles; leave it out, or give --backend torch"
    assert str(error.value) == line
    assert cli.parse(["--backend", "torch", "--compile", value]).run.compile == (value == "True")
    file = tmp_path / "config.toml"
    file.write_text(f'backend = "jax"\ncompile = {value.lower()}\n')
    assert cli.read_run(file).run.backend == "jax"


def test_every_flag_has_a_task_and_every_task_shows_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    for task in TASKS:
        with pytest.raises(SystemExit):
            main(["--task", task, "--help"])
        shown = set(re.findall(r"^  --(\w+)", capsys.readouterr().out, re.MULTILINE)) & FLAGS.keys()
        assert shown == {flag.name for flag in FLAGS.values() if task in flag.tasks and flag.group != "slurm"}
    assert all(set(flag.tasks) <= TASKS.keys() and flag.tasks for flag in FLAGS.values())


def test_a_file_may_name_another_tasks_flag_only_with_the_value_it_has_anyway(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("drop_path = 0.0\nmixup = 0.8\n")
    with pytest.raises(TrainError) as error:
        cli.parse(["--config", str(file)])
    line = f"{file}: --mixup: --task pretrain does not use it, only finetune; leave it out"
    assert str(error.value) == line
    file.write_text("drop_path = 0.0\n")
    assert cli.parse(["--config", str(file)]) == cli.parse([])


def test_flags_of_slurm_are_refused_without_it() -> None:
    with pytest.raises(TrainError, match="--nodes: is for submitting to SLURM; give --slurm True, too"):
        cli.parse(["--nodes", "8"])
    assert cli.parse(["--nodes", "8", "--slurm", "True"]).slurm.nodes == 8
    assert cli.parse(["--nodes", "8", "--slurm", "False"]).slurm.nodes == 8  # the words of a submitted job
