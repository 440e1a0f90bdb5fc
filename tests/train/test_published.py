"""Every flag of the published scripts is known: it works, has no effect, or is refused with its replacement."""

import pytest

from train.config import cli
from train.config.published import PUBLISHED
from train.errors import TrainError

SCRIPTS = """
batch_size epochs warmup_epochs update_freq model input_size mask_ratio norm_pix_loss decoder_depth decoder_embed_dim
weight_decay lr blr min_lr data_path output_dir log_dir device seed resume auto_resume save_ckpt save_ckpt_freq
save_ckpt_num start_epoch num_workers pin_mem crop_pct world_size local_rank dist_on_itp dist_url drop_path
layer_decay_type model_ema model_ema_decay model_ema_force_cpu model_ema_eval clip_grad layer_decay warmup_steps opt
opt_eps opt_betas momentum weight_decay_end color_jitter aa smoothing train_interpolation reprob remode recount
resplit mixup cutmix cutmix_minmax mixup_prob mixup_switch_prob mixup_mode finetune head_init_scale model_key
model_prefix nb_classes eval_data_path imagenet_default_mean_and_std data_set eval dist_eval disable_eval use_amp
enable_wandb project wandb_ckpt layer_scale_init_value distributed
ngpus nodes timeout job_dir partition use_volta32 comment
"""
"""Every flag of the released scripts for pre-training, fine-tuning and submitting, and of V1's, from which commands
are copied."""

OWN = {option.removeprefix("--") for option in cli._parser("finetune")._option_string_actions}


@pytest.mark.parametrize("flag", SCRIPTS.split())
def test_every_published_flag_is_known(flag: str) -> None:
    assert flag in OWN or flag in PUBLISHED


def test_nothing_else_is_in_the_table() -> None:
    assert PUBLISHED.keys() <= set(SCRIPTS.split())


def test_a_command_with_all_that_changes_nothing_is_the_run_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    flags = {name: known for name, known in PUBLISHED.items() if name not in OWN}
    harmless = {name: known.harmless[0] if known.harmless else "any" for name, known in flags.items()}
    words = [word for name, value in harmless.items() for word in (f"--{name}", *value.split())]
    assert cli.parse(["--epochs", "3", *words, "--seed", "4"]) == cli.parse(["--epochs", "3", "--seed", "4"])
    said = capsys.readouterr()
    assert [line.split()[1] for line in said.err.splitlines()] == [f"--{name}" for name in harmless]
    assert said.out == ""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--opt sgd", "--opt sgd: every published recipe trains with AdamW"),
        ("--opt_eps 1e-6", "--opt_eps 1e-6: AdamW's epsilon is 1e-8"),
        ("--warmup_steps=500", "--warmup_steps 500: warm-up is given in epochs"),
        ("--mixup_mode elem", "--mixup_mode elem: one draw mixes all images of a group"),
        ("--cutmix_minmax 0.2 0.8", "--cutmix_minmax 0.2 0.8: the boxes of cutmix follow a beta distribution"),
        ("--pin_mem True --epoch 3", "--epoch: no such flag; did you mean '--epochs'?"),
    ],
)
def test_a_value_that_would_change_the_run_is_refused(words: str, line: str) -> None:
    with pytest.raises(TrainError) as error:
        cli.parse(words.split())
    assert str(error.value).startswith(line)


def test_the_same_number_may_be_spelt_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.parse(["--opt_eps", "0.00000001", "--opt=AdamW"]) == cli.parse([])
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_switch_of_mpirun_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.parse(["--dist_on_itp", "True"]) == cli.parse([])
    assert capsys.readouterr().err == "note: --dist_on_itp True: mpirun's variables are read; leave it out\n"


def test_a_switch_alone_is_on() -> None:
    config = cli.parse(["--task", "finetune", "--use_amp", "--epochs", "3", "--model_ema"])
    expected = {"precision": "bfloat16", "epochs": 3, "model_ema": True}
    assert config.flags().items() >= expected.items()
