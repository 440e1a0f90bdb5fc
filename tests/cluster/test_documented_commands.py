"""The commands of docs/clusters.md: each parses, and is the run of its recipe on one device."""

import re
import shlex
from dataclasses import replace
from typing import NamedTuple

import pytest

from tests.cluster.runs import ROOT
from tests.train import released
from train.config import cli
from train.config.groups import ClusterConfig, SlurmConfig
from train.config.recipes import RELEASED

DOCUMENT = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
(BLOCK,) = re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
FORMS = {
    "slurm": r"^python -m train (?P<words>--slurm True --nodes (?P<nodes>\d+) --ngpus (?P<each>\d+) .*)$",
    "srun": r"^srun --nodes (?P<nodes>\d+) --ntasks-per-node (?P<each>\d+) --gpus-per-node (?P=each) --cpus-per-task 10"
    r" --wait 60 python -m train (?P<words>.*)$",
    "torchrun": r"^torchrun --nnodes (?P<nodes>\d+) --nproc_per_node (?P<each>\d+) --rdzv_backend c10d --rdzv_endpoint"
    r" HOST:29500 -m train (?P<words>.*)$",
    "one machine": r"^torchrun --nproc_per_node (?P<each>\d+) -m train (?P<words>.*)$",
    "TPU": r"^gcloud .* --worker=all --command='python -m train (?P<words>.*)'$",
}


class Command(NamedTuple):
    """A documented command: how it starts processes, on how many devices, and its arguments for `train`."""

    form: str
    devices: int
    words: str


def command(form: str, recipe: str) -> Command:
    """The documented command for a recipe: fine-tuning takes half the machines and a checkpoint, as the page says."""
    (match,) = re.finditer(FORMS[form], BLOCK, re.MULTILINE)
    found = match.groupdict()
    devices, words = int(found.get("nodes") or 1) * int(found.get("each") or 64), found["words"]
    if recipe != "pretrain_base":
        words = words.replace("pretrain_base", recipe) + " --finetune CKPT"
        words = words.replace("--nodes 8", "--nodes 4").replace("--update_freq 8", "--update_freq 4")
        devices = devices if form == "one machine" else devices // 2
    return Command(form, devices, words)


def test_every_command_of_the_page_is_of_a_known_form() -> None:
    assert BLOCK.count("-m train") == len(FORMS) == sum(len(re.findall(f, BLOCK, re.MULTILINE)) for f in FORMS.values())


@pytest.mark.parametrize("recipe", RELEASED)
@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_run_of_one_device(form: str, recipe: str) -> None:
    documented = command(form, recipe)
    single = cli.parse(["--recipe", recipe, "--data_path", "DATA", "--output_dir", "OUT", *released.start(recipe)])
    several = replace(cli.parse(shlex.split(documented.words)), devices=documented.devices)
    assert several.effective_batch == single.effective_batch
    assert several.peak_lr == single.peak_lr
    flags = several.as_dict()
    free = {"batch_size", "update_freq", "devices", "backend", *ClusterConfig.__dataclass_fields__}
    free |= SlurmConfig.__dataclass_fields__.keys()
    assert _without(flags, free) == _without(single.as_dict(), free)
    assert flags["backend"] == ("jax" if form == "TPU" else "torch")
    assert flags["slurm"] == (form == "slurm")
    if flags["slurm"]:
        assert flags["nodes"] * flags["ngpus"] == documented.devices


def _without(values: dict[str, object], names: set[str]) -> dict[str, object]:
    return {name: value for name, value in values.items() if name not in names}
