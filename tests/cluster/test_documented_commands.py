"""The commands of docs/clusters.md: each parses, and means what docs/recipes.md says of one device."""

import re
import shlex
from dataclasses import replace
from typing import NamedTuple

import pytest

from tests.cluster.runs import ROOT
from tests.train.test_recipes import LONG
from train.config import cli
from train.config.groups import ClusterConfig, SlurmConfig

DOCUMENT = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
FORMS = {
    "slurm": r"^python -m train (?P<words>--slurm True --nodes (?P<nodes>\d+) --ngpus (?P<each>\d+) .*)$",
    "srun": r"^srun --nodes (?P<nodes>\d+) --ntasks-per-node (?P<each>\d+) --gpus-per-node (?P=each) --cpus-per-task 10"
    r" --wait 60 python -m train (?P<words>.*)$",
    "torchrun": r"^torchrun --nnodes (?P<nodes>\d+) --nproc_per_node (?P<each>\d+) --rdzv_backend c10d --rdzv_endpoint"
    r" HOST:29500 -m train (?P<words>.*)$",
    "one machine": r"^torchrun --nproc_per_node (?P<each>\d+) -m train (?P<words>.*)$",
    "TPU": r"^gcloud .* --worker=all --command=['\"]python -m train (?P<words>.*)['\"]$",
}
CHIPS = {"pretrain": 64, "finetune": 32}


class Found(NamedTuple):
    """A documented command: how it starts processes, for which of the released ones, on how many devices."""

    form: str
    released: int
    devices: int
    words: str


def found() -> list[Found]:
    """All of them, in order."""
    commands = []
    for number, block in enumerate(BLOCKS[1:]):
        named = dict(re.findall(r'^(FT_\w+)="(.*)"$', block, re.MULTILINE))
        text = re.sub(r"\$(FT_\w+)", lambda match, named=named: named[match[1]], block)
        for form, pattern in FORMS.items():
            for match in re.finditer(pattern, text, re.MULTILINE):
                told = match.groupdict()
                devices = int(told.get("nodes") or 1) * int(told["each"]) if "each" in told else 0
                commands.append(Found(form, number, devices, told["words"]))
    return commands


def test_every_released_command_has_every_form() -> None:
    assert [(each.released, each.form) for each in found()] == [(n, form) for n in range(len(LONG)) for form in FORMS]
    assert sum(block.count("-m train") for block in BLOCKS[1:]) == len(found())


@pytest.mark.parametrize("command", found(), ids=lambda each: f"{each.form} {each.released}")
def test_it_is_the_run_of_one_device(command: Found) -> None:
    single = cli.parse(shlex.split(LONG[command.released]))
    several = cli.parse(shlex.split(command.words))
    several = replace(several, devices=command.devices or CHIPS[single.run.task])
    assert several.effective_batch == single.effective_batch
    assert several.peak_lr == single.peak_lr
    free = {"batch_size", "update_freq", "devices", "backend", *ClusterConfig.__dataclass_fields__}
    free |= SlurmConfig.__dataclass_fields__.keys()
    assert _without(several.as_dict(), free) == _without(single.as_dict(), free)
    assert several.run.backend == ("jax" if command.form == "TPU" else "torch")
    assert several.cluster.slurm == (command.form == "slurm")
    if several.cluster.slurm:
        assert several.slurm.nodes * several.slurm.ngpus == command.devices


def test_the_script_is_the_same_run() -> None:
    script = BLOCKS[0]
    told = dict(re.findall(r"--(nodes|ntasks-per-node|gpus-per-node)=(\d+)", script))
    (words,) = re.findall(r"^  python -m train (.*)$", script, re.MULTILINE)
    config = replace(cli.parse(shlex.split(words)), devices=int(told["nodes"]) * int(told["ntasks-per-node"]))
    assert config.effective_batch == 4096
    assert told["ntasks-per-node"] == told["gpus-per-node"]


def _without(values: dict[str, object], names: set[str]) -> dict[str, object]:
    return {name: value for name, value in values.items() if name not in names}
