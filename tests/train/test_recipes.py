"""The recipes: each resolves, as published, and can be overridden; the documented commands mean the same."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import spec
from tests.train import released
from train.__main__ import main
from train.config import Config, cli
from train.config.config import FLAGS
from train.config.recipes import FINETUNE, RECIPES, RELEASED
from train.errors import TrainError

EFFECTIVE = {"pretrain_": 4096, "finetune_22k_1k_": 512, "finetune_22k_": 4096, "finetune_": 1024}


def recipe(name: str, *flags: str) -> Config:
    return cli.parse(["--recipe", name, "--data_path", "DATA", *flags])


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_command_and_its_recipe_are_the_same_run(name: str) -> None:
    given, submitted = recipe(name, "--output_dir", "OUT", *released.start(name)), cli.parse(released.submitted(name))
    assert submitted.as_dict()["nodes"] * submitted.as_dict()["ngpus"] == released.devices(name)
    assert replace(submitted, devices=released.devices(name)).effective_batch == given.effective_batch
    by_flags, by_name = cli.parse(released.started(name)).as_dict(), given.as_dict()
    assert by_flags["update_freq"] * released.devices(name) == by_name["update_freq"]
    assert by_flags | {name: by_name[name] for name in ("recipe", "update_freq")} == by_name


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_resolves(name: str) -> None:
    config = recipe(name)
    prefix = next(prefix for prefix in EFFECTIVE if name.startswith(prefix))
    assert config.effective_batch == EFFECTIVE[prefix]
    assert config.model.model == f"convnextv2_{name.removeprefix(prefix)}"
    assert config.model.model in spec.PRESETS
    assert config.run.task == ("pretrain" if prefix == "pretrain_" else "finetune")
    assert config.optimizer.weight_decay in (0.05, 0.3, 1e-8)


def test_peak_rates_scale_with_the_batch_and_not_with_how_it_is_shared_out() -> None:
    assert recipe("finetune_base").peak_lr == 2.5e-3
    assert recipe("finetune_base", "--batch_size", "256", "--update_freq", "4").peak_lr == 2.5e-3
    assert recipe("finetune_22k_1k_huge").peak_lr == 5e-5


def test_larger_models_drop_more_paths_and_train_for_fewer_epochs() -> None:
    sizes = ("tiny", "base", "large", "huge")
    epochs = [recipe(f"finetune_{size}").optimizer.epochs for size in FINETUNE]
    assert epochs == sorted(epochs, reverse=True)
    for prefix in ("finetune_22k_", "finetune_22k_1k_"):
        rates = [recipe(f"{prefix}{size}").finetune.drop_path for size in sizes]
        assert rates == sorted(rates)


def test_flags_win_over_the_recipe_and_sources_are_shown() -> None:
    words = "--recipe finetune_base --drop_path 0.2 --use_amp False --data_path DATA"
    resolved = cli.read(words.split())
    expected = {"drop_path": 0.2, "precision": "float32", "mixup": 0.8}
    assert resolved.config.flags().items() >= expected.items()
    assert resolved.origins["drop_path"] == resolved.origins["precision"] == "the command line"
    assert resolved.origins["blr"] == "released command for base; the paper prints 6.25e-3"
    assert resolved.origins["mixup"].startswith("paper, fine-tuning settings on ImageNet-1K")
    assert resolved.origins["min_lr"] == "default of the released fine-tuning script"
    assert resolved.origins["mix_group"] == "default"


def test_a_file_is_named_as_the_source_of_its_values(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("recipe = 'finetune_tiny'\nepochs = 7\nuse_amp = false\n")
    resolved = cli.read(["--config", str(file), "--seed", "3", "--data_path", "DATA"])
    expected = {"epochs": 7, "precision": "float32", "model": "convnextv2_tiny"}
    assert resolved.config.flags().items() >= expected.items()
    assert (resolved.origins["epochs"], resolved.origins["seed"]) == (str(file), "the command line")


def test_a_recipe_is_shown_with_its_sources(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--recipe", "finetune_22k_1k_huge", "--show_recipe", "--data_path", "DATA"])
    assert not ended.value.code
    shown = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert shown.keys() == {name for name, flag in FLAGS.items() if "finetune" in flag.tasks}
    assert re.fullmatch(
        r"layer_decay +0\.85 +paper, fine-tuning settings on ImageNet-1K after 22K", shown["layer_decay"]
    )
    assert re.fullmatch(
        r"layer_decay_type +single +not published; as on ImageNet-1K for this size", shown["layer_decay_type"]
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--recipe finetune_bas", "--recipe finetune_bas: unknown; did you mean 'finetune_base'?"),
        ("--recipe 7", "--recipe 7: unknown; choose one of pretrain_atto, "),
        ("--recipe finetune_base --task pretrain", "--recipe finetune_base: is for --task finetune, not pretrain"),
        ("--use_amp True --precision float32", "--use_amp True: contradicts --precision float32; give one of them"),
        ("--task finetune --mixup 3", "--mixup: 3.0 is above 2"),
        ("--task eval --crop_pct 0", "--crop_pct: 0.0 is below 0.1"),
        ("--remode noise", "--remode: 'noise' is unknown; choose pixel or rand or const"),
    ],
)
def test_a_mistake_is_one_line(words: str, line: str) -> None:
    with pytest.raises(TrainError) as error:
        cli.parse(words.split())
    assert str(error.value).startswith(line)


def test_published_switches_are_understood() -> None:
    words = "--imagenet_default_mean_and_std False --eval True --use_amp 1 --data_path DATA"
    config = cli.parse(words.split())
    expected = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "task": "eval", "precision": "bfloat16"}
    assert config.flags().items() >= expected.items()


def test_the_digits_keep_what_they_are_under_a_recipe() -> None:
    config = cli.parse(["--recipe", "finetune_atto"])
    expected = {"model": "convnextv2_atto", "in_chans": 1, "patch_size": 8, "input_size": (32,)}
    assert config.flags().items() >= expected.items()
    assert (config.optimizer.epochs, config.augment.smoothing, config.data.hflip) == (600, 0.2, 0.0)
    own = cli.parse(["--task", "finetune"])
    assert (own.model.model, own.augment.aa, own.augment.smoothing) == (None, "none", 0.1)


def test_help_lists_the_flags_of_fine_tuning_where_they_matter(capsys: pytest.CaptureFixture[str]) -> None:
    def lines(*words: str) -> str:
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        return capsys.readouterr().out

    assert "--mixup" not in lines()
    for words in (("--task", "finetune"), ("--recipe=finetune_base",)):
        assert "--mixup X" in lines(*words)
    for words in (("--task", "eval"), ("--eval", "True")):
        assert "--crop_pct X" in lines(*words)
    assert "(default: 100)" in lines("--task", "finetune")
