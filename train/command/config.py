"""What can be asked of a run: one frozen dataclass, its fields the published flags.

The defaults are those of the released scripts, of pre-training where the two differ;
`recipes.py` has all other values. The groups of flags are the bases of `Config`: a field
reads `config.batch_size` wherever it is declared.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from backends.protocol import TrainerOptions
from train.errors import TrainError

DIGITS_PATH = "digits"
"""The value of --data_path that means the embedded images."""


def flag(default: Any, text: str, *, at_least: float | None = None, at_most: float | None = None) -> Any:
    """A field with the line `--help` shows and the least and greatest value it takes."""
    return field(default=default, metadata={"help": text, "limits": (at_least, at_most)})


def _threads() -> int:
    return min(10, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@dataclass(frozen=True)
class RunFlags:
    """Run"""

    task: Literal["pretrain", "finetune", "eval", "reconstruct", "analyse", "probe"] = flag(
        "pretrain", "what the run does"
    )
    recipe: str | None = flag(None, "a published recipe, such as finetune_base (docs/recipes.md)")
    backend: Literal["torch", "jax"] = flag("torch", "framework that trains")
    device: str | None = flag(None, "cpu, cuda, cuda:1, tpu ...; the framework's best one by default")
    precision: Literal["float32", "bfloat16", "float64"] = flag("float32", "what the model computes in")
    engine: str | None = flag(None, "how the encoder skips removed patches; the best one by default")
    compile: bool = flag(False, "torch: compile the model, which takes a minute and may pay; JAX always does")
    grad_checkpointing: bool = flag(False, "compute a block again in its backward pass, to save memory")
    seed: int = flag(0, "decides every random draw of the run", at_least=0)
    parity_check: bool = flag(True, "compare the engine with the masked one before the first step")
    output_dir: str = flag("", "run directory; by default runs/ and what the run is")
    log_dir: str = flag("", "TensorBoard events; <output_dir>/tb by default")
    print_freq: int = flag(20, "updates between two lines of the log", at_least=1)
    wandb: str = flag("", "Weights & Biases project to log to as well")
    picture_freq: int = flag(20, "epochs between two reconstruction pictures; 0 draws none", at_least=0)


@dataclass(frozen=True)
class CheckpointFlags:
    """Checkpoints"""

    auto_resume: bool = flag(True, "go on from the newest good checkpoint in output_dir")
    resume: str = flag("", "go on from this checkpoint instead (a folder step-XXXXXXXX)")
    start_epoch: int = flag(0, "first epoch, where nothing is resumed", at_least=0)
    save_ckpt: bool = flag(True, "write checkpoints")
    save_ckpt_freq: int = flag(1, "epochs between two checkpoints", at_least=1)
    save_every_steps: int | None = flag(None, "updates between two checkpoints, beside those", at_least=1)
    save_ckpt_num: int = flag(3, "newest checkpoints kept", at_least=1)
    max_steps: int | None = flag(None, "end the run, schedule included, after so many updates", at_least=1)
    stop_at_step: int | None = flag(None, "save and leave after this update; the schedule stays", at_least=1)


@dataclass(frozen=True)
class DataFlags:
    """Images"""

    data_path: str = flag(DIGITS_PATH, "a folder of images, of tar or parquet shards, an npz file, or 'digits'")
    input_size: tuple[int, ...] = flag((224,), "side, or height and width, in pixels")
    crop_scale: tuple[float, ...] = flag((0.2, 1.0), "share of the image's area that a random crop takes", at_least=0)
    hflip: float = flag(0.5, "probability of a left-right flip", at_least=0)
    decode: Literal["exact", "scaled"] = flag("exact", "scaled: large JPEGs at a half of their size or less, faster")
    mean: tuple[float, ...] = flag((0.485, 0.456, 0.406), "subtracted from pixels in 0..1, a channel")
    std: tuple[float, ...] = flag((0.229, 0.224, 0.225), "divides them, a channel", at_least=0)
    num_workers: int = flag(_threads(), "batches made at the same time", at_least=1)
    worker_type: Literal["thread", "process"] = flag("thread", "what makes them; the batches are the same")


@dataclass(frozen=True)
class ModelFlags:
    """Model"""

    model: str | None = flag("convnextv2_base", "a preset (python -m spec list), or none and depths, dims")
    depths: tuple[int, ...] | None = flag(None, "blocks a stage", at_least=1)
    dims: tuple[int, ...] | None = flag(None, "channels a stage", at_least=1)
    in_chans: int = flag(3, "channels of the images", at_least=1)
    patch_size: int = flag(32, "side of the patches that are removed, in pixels", at_least=1)
    grn_scope: Literal["image", "batch"] = flag(
        "image", "GRN's sum; 'batch', over a device's, repeats the released sparse code"
    )
    mask_ratio: float = flag(0.6, "share of the patches removed")
    decoder_depth: int = flag(1, "blocks of the decoder", at_least=1)
    decoder_embed_dim: int = flag(512, "channels of the decoder", at_least=1)
    norm_pix_loss: bool = flag(True, "predict each patch's pixels normalised by its own mean and variance")


@dataclass(frozen=True)
class OptimizerFlags:
    """Optimisation"""

    batch_size: int = flag(64, "images a micro-batch, on each device", at_least=1)
    update_freq: int = flag(1, "micro-batches an update (gradient accumulation)", at_least=1)
    epochs: int = flag(800, "passes over the images", at_least=1)
    warmup_epochs: float = flag(40, "epochs of linear warm-up", at_least=0)
    blr: float = flag(1.5e-4, "peak learning rate a 256 images of an update", at_least=0)
    lr: float | None = flag(None, "the peak itself, whatever the batch", at_least=0)
    min_lr: float = flag(0.0, "where the cosine ends", at_least=0)
    weight_decay: float = flag(0.05, "AdamW's, on convolution and linear weights", at_least=0)
    clip_grad: float | None = flag(None, "largest norm of the gradient; published: none", at_least=0)


@dataclass(frozen=True)
class FinetuneFlags:
    """Fine-tuning and evaluation"""

    finetune: str = flag("", "checkpoint to start from, or to look into, in any format that convert reads")
    train_labels: int | None = flag(None, "labelled images to train on, of each class alike; or all", at_least=1)
    nb_classes: int | None = flag(None, "classes of the head; as many as the data has by default", at_least=1)
    head_init_scale: float = flag(0.001, "what the head's first weights are multiplied by", at_least=0)
    drop_path: float = flag(0.0, "how often the last block is skipped; earlier blocks less", at_least=0)
    layer_decay: float | None = flag(None, "each layer learns slower than the next by this factor", at_least=0)
    layer_decay_type: Literal["single", "group"] = flag("single", "what counts as a layer: a block, or about three")
    model_ema: bool = flag(False, "keep a moving average of the parameters")
    model_ema_decay: float = flag(0.9999, "share of it that an update leaves", at_least=0, at_most=1)
    model_ema_eval: bool = flag(False, "evaluate it too")
    eval_data_path: str = flag("", "images to evaluate on; the val part of data_path by default")
    eval_freq: int = flag(1, "epochs between two evaluations", at_least=1)
    disable_eval: bool = flag(False, "train without evaluating")
    crop_pct: float | None = flag(None, "share of an image judged, below 384 px (0.875)", at_least=0.1, at_most=1)


@dataclass(frozen=True)
class AugmentFlags:
    """Augmentation in fine-tuning"""

    aa: str = flag("rand-m9-mstd0.5-inc1", "RandAugment policy as timm writes it, or none")
    smoothing: float = flag(0.1, "share of the target spread over all classes", at_least=0, at_most=1)
    reprob: float = flag(0.25, "probability of random erasing", at_least=0, at_most=1)
    remode: Literal["pixel", "rand", "const"] = flag("pixel", "what is written there: noise a value, a channel, or 0")
    recount: int = flag(1, "most boxes erased in an image", at_least=1)
    mixup: float = flag(0.0, "shape of mixup's beta distribution; 0 for none", at_least=0, at_most=2)
    cutmix: float = flag(0.0, "shape of cutmix's; 0 for none", at_least=0, at_most=2)
    mixup_prob: float = flag(1.0, "probability that a group is mixed", at_least=0, at_most=1)
    mixup_switch_prob: float = flag(0.5, "probability of cutmix where there are both", at_least=0, at_most=1)
    mix_group: int = flag(32, "images mixed with each other, whatever the batch; published: a device's", at_least=2)


@dataclass(frozen=True)
class ClusterFlags:
    """Several devices"""

    shard: bool = flag(False, "split parameters, moments and average over the devices, instead of a copy on each")
    slurm: bool = flag(False, "submit the run to SLURM; --slurm True --help lists the flags for it")


@dataclass(frozen=True)
class SlurmFlags:
    """SLURM"""

    nodes: int = flag(2, "machines to ask for", at_least=1)
    ngpus: int = flag(8, "GPUs of each; with --device cpu, processes on each", at_least=1)
    timeout: int = flag(4320, "minutes after which the run saves and queues again", at_least=5)
    partition: str | None = flag(None, "part of the cluster; SLURM's default one")
    constraint: str | None = flag(None, "what the machines must have, as in sbatch")
    comment: str | None = flag(None, "a note for the scheduler, as in sbatch")
    cpus_per_task: int = flag(10, "cores for each process", at_least=1)
    mem_gb: int | None = flag(None, "memory of each machine; SLURM's default", at_least=1)


@dataclass(frozen=True)
class LookFlags:
    """Reconstructions and analysis of a checkpoint"""

    images: tuple[str, ...] | None = flag(None, "image files to look at, in place of data_path")
    num_images: int = flag(8, "images of data_path to look at", at_least=1)
    against: tuple[str, ...] | None = flag(None, "other checkpoints, for curves on the same plot")


@dataclass(frozen=True)
class ProbeFlags:
    """Probes of a frozen encoder"""

    knn_k: tuple[int, ...] = flag((10, 20), "nearest neighbours that vote; several are tried", at_least=1)
    knn_temperature: float = flag(0.07, "divides a neighbour's similarity; a vote is exp of it", at_least=0.01)
    probe_l2: tuple[float, ...] = flag(
        (1e-5, 1e-4, 1e-3, 1e-2, 1e-1), "penalties the linear probe chooses from", at_least=1e-9
    )


@dataclass(frozen=True)
class Config(
    ProbeFlags,
    LookFlags,
    AugmentFlags,
    FinetuneFlags,
    OptimizerFlags,
    ModelFlags,
    DataFlags,
    SlurmFlags,
    ClusterFlags,
    CheckpointFlags,
    RunFlags,
):
    """A resolved run: every flag with its value. TrainError for a value that cannot be."""

    devices: int = flag(1, "that share an update: not asked for, but found")

    def __post_init__(self) -> None:
        for member in fields(self):
            value, (low, high) = getattr(self, member.name), member.metadata["limits"]
            for number in value if isinstance(value, tuple) else (value,):
                if low is not None and number is not None and not number >= low:
                    raise TrainError(f"--{member.name}: {number} is below {low}")
                if high is not None and number is not None and not number <= high:
                    raise TrainError(f"--{member.name}: {number} is above {high}")
        if len(self.input_size) not in (1, 2):
            raise TrainError(f"--input_size: {self.input_size} is neither a side nor height and width")
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise TrainError(f"--crop_scale: {self.crop_scale} is no range inside 0..1; the published one is 0.2 1.0")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.in_chans):
                raise TrainError(f"--{name}: {len(values)} values for {self.in_chans} channels; give one each, or one")
        if 0 in self.std:
            raise TrainError(f"--std: {self.std} holds a zero, by which no pixel can be divided")

    @property
    def crop_range(self) -> tuple[float, float]:
        """Smallest and largest share of the image that a random crop takes."""
        return self.crop_scale[0], self.crop_scale[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.input_size[0], self.input_size[-1]

    @property
    def effective_batch(self) -> int:
        """Images an update."""
        return self.batch_size * self.update_freq * self.devices

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up: linear in the effective batch unless given outright."""
        return self.blr * self.effective_batch / 256 if self.lr is None else self.lr

    def trainer_options(self) -> TrainerOptions:
        """How the backend's trainer computes."""
        return TrainerOptions(
            seed=self.seed,
            dtype=self.precision,
            engine=self.engine,
            mean=self.mean,
            std=self.std,
            device=self.device,
            shard=self.shard,
            remat=self.grad_checkpointing,
            compile=self.compile,
        )

    @property
    def run_dir(self) -> Path:
        words = [Path(self.data_path).resolve().name, self.task, self.backend]
        return Path(self.output_dir or "runs/" + "-".join(word for word in words if word != "pretrain"))

    def to_toml(self) -> str:
        """The fields that have a value, by group; what --config reads back."""
        lines = []
        for title, members in groups():
            lines += ["", f"# {title}"]
            values = {member.name: getattr(self, member.name) for member in members}
            lines += [f"{name} = {json.dumps(value)}" for name, value in values.items() if value is not None]
            lines += [f'{m.name} = "none"' for m in members if values[m.name] is None and m.default is not None]
        return "\n".join(lines[1:]) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        return dict(json.loads(json.dumps(asdict(self))))


def groups() -> Iterator[tuple[str, tuple[Field[Any], ...]]]:
    """(title, fields) of each group of flags, in the order of `--help`."""
    for base in reversed(Config.__bases__):
        yield str(base.__doc__), fields(base)
