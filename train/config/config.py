"""The resolved configuration of a run, and the table of its flags."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, Self, get_type_hints

from backends.protocol import Optimizer, TrainerOptions
from convert.preparation import PHOTOGRAPHS
from train.config import groups
from train.config.groups import Group
from train.errors import TrainError


@dataclass(frozen=True)
class Config:
    """Every flag with its value, in groups: `config.data.mean`. TrainError for values that contradict each other."""

    run: groups.RunConfig = field(default_factory=groups.RunConfig)
    checkpoints: groups.CheckpointConfig = field(default_factory=groups.CheckpointConfig)
    cluster: groups.ClusterConfig = field(default_factory=groups.ClusterConfig)
    slurm: groups.SlurmConfig = field(default_factory=groups.SlurmConfig)
    data: groups.DataConfig = field(default_factory=groups.DataConfig)
    model: groups.ModelConfig = field(default_factory=groups.ModelConfig)
    optimizer: groups.OptimizerConfig = field(default_factory=groups.OptimizerConfig)
    finetune: groups.FinetuneConfig = field(default_factory=groups.FinetuneConfig)
    augment: groups.AugmentConfig = field(default_factory=groups.AugmentConfig)
    inspect: groups.InspectConfig = field(default_factory=groups.InspectConfig)
    probe: groups.ProbeConfig = field(default_factory=groups.ProbeConfig)

    devices: int = 1
    """Number of devices that share an update: found at the start, not a flag."""

    given: frozenset[str] = field(default=frozenset(), compare=False)
    """The flags that the user gave, on the command line or in a file."""

    normalises: str = field(default=PHOTOGRAPHS, compare=False)
    """The values that mean and std are for, unless they are given: photographs, or those of a checkpoint's run."""

    notes: tuple[str, ...] = field(default=(), compare=False)
    """Lines to print at the start: which values are those of a checkpoint's run."""

    def __post_init__(self) -> None:
        if self.run.cuda_graphs and self.run.backend == "jax":
            raise TrainError("--cuda_graphs True: is for torch; leave it out, or give --backend torch")
        for name, values in (("mean", self.data.mean), ("std", self.data.std)):
            if len(values) not in (1, channels := self.model.in_chans):
                raise TrainError(f"--{name}: {len(values)} values for {channels} channels; give one each, or one")
        shown = self.run.picture_channels
        if shown is not None and (len(shown) not in (1, 3) or max(shown) >= channels):
            raise TrainError(
                f"--picture_channels {format_value(shown)}: give one channel, or three, of 0 to {channels - 1}"
            )

    @classmethod
    def from_flags(cls, **values: Any) -> Self:
        """The configuration in which some flags have the given values, all others their defaults."""
        own: dict[str, dict[str, Any]] = {name: {} for name in GROUPS}
        for name, value in values.items():
            own[FLAGS[name].group][name] = value
        made: dict[str, Any] = {name: group(**own[name]) for name, group in GROUPS.items()}
        return cls(**made)

    def flags(self) -> dict[str, Any]:
        """Flag -> value, in the order of FLAGS."""
        return {name: getattr(getattr(self, flag.group), name) for name, flag in FLAGS.items()}

    def used_flags(self) -> dict[str, Any]:
        """Flag -> value of those that the task uses."""
        return {name: value for name, value in self.flags().items() if self.run.task in FLAGS[name].tasks}

    @property
    def effective_batch(self) -> int:
        """Images per update, over all devices."""
        return self.optimizer.batch_size * self.optimizer.update_freq * self.devices

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up: --lr, or --blr * effective_batch / 256."""
        return self.optimizer.blr * self.effective_batch / 256 if self.optimizer.lr is None else self.optimizer.lr

    @property
    def run_dir(self) -> Path:
        """The run directory: --output_dir, or a folder in runs/ named after data, task and backend."""
        words = [_data_name(Path(self.data.data_path).resolve()), self.run.task, self.run.backend]
        return Path(self.run.output_dir or "runs/" + "-".join(word for word in words if word != "pretrain"))

    def adamw(self) -> Optimizer:
        """The optimizer of a training run."""
        b1, b2 = self.optimizer.opt_betas
        return Optimizer(
            weight_decay=self.optimizer.weight_decay,
            betas=(b1, b2),
            clip_grad=self.optimizer.clip_grad,
            layer_decay=self.finetune.layer_decay,
            layer_decay_type=self.finetune.layer_decay_type,
            ema_decay=self.finetune.model_ema_decay if self.finetune.model_ema else None,
        )

    def trainer_options(self) -> TrainerOptions:
        """How the backend's trainer computes."""
        return TrainerOptions(
            seed=self.run.seed,
            dtype=self.run.precision,
            engine=self.run.engine,
            mean=self.data.mean,
            std=self.data.std,
            device=self.run.device,
            shard=self.cluster.shard,
            remat=self.run.grad_checkpointing,
            compile=self.run.compile,
            graphs=self.run.cuda_graphs,
            kernels=self.run.kernels,
        )

    def to_toml(self) -> str:
        """The text of config.toml, which --config reads back: flat, with group titles as comments."""
        values, lines = self.used_flags(), []
        for title, every in titled():
            flags = [flag for flag in every if flag.name in values]
            lines += ["", f"# {title}"] if flags else []
            lines += [f"{flag.name} = {_toml(values[flag.name])}" for flag in flags if values[flag.name] is not None]
            lines += [f'{f.name} = "none"' for f in flags if values[f.name] is None and f.default is not None]
        return "\n".join(lines[1:]) + "\n"

    def command(self) -> str:
        """The command with the flags that the user gave."""
        flags = {name: value for name, value in self.flags().items() if name in self.given}
        words = [f"--{name} {quoted(value)}" for name, value in flags.items()]
        return " ".join(["twinnext train", *words])

    def as_dict(self) -> dict[str, Any]:
        """Flag -> value, and devices, as JSON types."""
        return dict(json.loads(json.dumps({**self.flags(), "devices": self.devices})))


class Flag(NamedTuple):
    """A flag of the command line: a field of a group of Config. tasks: those that use it."""

    name: str
    group: str
    default: Any
    hint: Any
    help: str
    tasks: tuple[str, ...]


GROUPS: dict[str, type[Group]] = {
    name: hint for name, hint in get_type_hints(Config).items() if isinstance(hint, type) and issubclass(hint, Group)
}
"""Name of a field of Config -> its class."""


def _flags() -> Iterator[Flag]:
    for name, group in GROUPS.items():
        hints = get_type_hints(group)
        for member in fields(group):  # type: ignore[arg-type]  # every group is a dataclass
            tasks = member.metadata["tasks"] or group.tasks
            yield Flag(member.name, name, member.default, hints[member.name], member.metadata["help"], tasks)


FLAGS: dict[str, Flag] = {flag.name: flag for flag in _flags()}
"""Every flag by name, in the order of `--help`."""


def titled() -> Iterator[tuple[str, list[Flag]]]:
    """(title, flags) of each group, in the order of `--help`."""
    for name, group in GROUPS.items():
        yield group.title, [flag for flag in FLAGS.values() if flag.group == name]


def format_value(value: Any) -> str:
    """The value as it is written on the command line."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "none" if value is None else str(value)


def quoted(value: Any) -> str:
    """The value as a shell reads it."""
    return shlex.join(map(str, value)) if isinstance(value, tuple) else shlex.quote(format_value(value))


def _data_name(path: Path) -> str:
    """The last part of a path that is no pattern."""
    return next(part.name for part in (path, *path.parents) if not set("*?[") & set(part.name))


def _toml(value: Any) -> str:
    """A value in TOML, which has JSON's syntax for these types but no pairs of surrogates and no bare DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
