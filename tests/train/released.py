"""The released commands as arguments of `python -m train`, by the rule of docs/recipes.md."""

import re
import shlex

from train.config.recipes import RELEASED

TASKS = {"submitit_pretrain.py": "pretrain", "submitit_finetune.py": "finetune"}


def submitted(recipe: str) -> list[str]:
    """The arguments of `python -m train` that submit the released command of a recipe to SLURM."""
    return ["--slurm", "True", *_arguments(RELEASED[recipe])]


def started(recipe: str) -> list[str]:
    """The arguments of each process of the released command on one machine."""
    return _arguments(re.sub(r" --(nodes|ngpus) \d+", "", RELEASED[recipe]))


def start(recipe: str) -> list[str]:
    """The flag of the checkpoint that fine-tuning starts from."""
    return ["--finetune", "CKPT"] if recipe.startswith("finetune") else []


def devices(recipe: str) -> int:
    """The number of GPUs that the released command takes."""
    nodes, each = re.findall(r"--(?:nodes|ngpus) (\d+)", RELEASED[recipe])
    return int(nodes) * int(each)


def _arguments(command: str) -> list[str]:
    script, *flags = shlex.split(command)
    task = TASKS[script]
    return [*([] if task == "pretrain" else ["--task", task]), *flags]
