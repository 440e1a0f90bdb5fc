"""The flags of a run, in groups: one frozen dataclass per group, one field per published flag.

The defaults are those of the released scripts, of pre-training where the two differ; all other
values are in `recipes.py`. A field has the name of its flag, which is unique over all groups.
"""

import os
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import backends
from convert.preparation import IMAGENET
from train.errors import TrainError

DIGITS_PATH = "digits"  # the value of --data_path that means the embedded images

TASKS = ("pretrain", "finetune", "eval", "predict", "embed", "probe", "reconstruct", "analyse")
TRAIN = ("pretrain", "finetune")
SCORED = ("finetune", "eval", "probe")
EXTRACT = ("predict", "embed")
INSPECT = ("reconstruct", "analyse")
MASKED = ("pretrain", "eval", "reconstruct")


def flag(
    default: Any,
    text: str,
    tasks: tuple[str, ...] | None = None,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A dataclass field with its line of `--help`, its tasks, and the bounds of its value, both inclusive.

    tasks: those that use the flag; any other refuses it. None: those of its group.
    """
    return field(default=default, metadata={"help": text, "tasks": tasks, "limits": (at_least, at_most)})


def _threads() -> int:
    return min(10, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


class Group:
    """Base of the groups: checks the bounds of every field; TrainError names the flag."""

    title: ClassVar[str]
    tasks: ClassVar[tuple[str, ...]] = TASKS

    def __post_init__(self) -> None:
        for member in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, member.name)
            for number in value if isinstance(value, tuple) else (value,):
                _check_bounds(member.name, number, *member.metadata["limits"])


def _check_bounds(name: str, number: Any, low: float | None, high: float | None) -> None:
    if low is not None and number is not None and not number >= low:
        raise TrainError(f"--{name}: {number} is below {low}")
    if high is not None and number is not None and not number <= high:
        raise TrainError(f"--{name}: {number} is above {high}")


@dataclass(frozen=True)
class RunConfig(Group):
    """Task, backend and output of the run."""

    title = "Run"
    task: Literal["pretrain", "finetune", "eval", "predict", "embed", "probe", "reconstruct", "analyse"] = flag(
        "pretrain", "what the run does"
    )
    recipe: str | None = flag(
        None, "a published recipe, such as finetune_base (docs/recipes.md)", (*TRAIN, "eval", "probe")
    )
    backend: Literal["torch", "jax"] = flag(
        next(iter(backends.installed()), "torch"), "framework (default: the installed one, torch if both are)"
    )
    device: str | None = flag(None, "cpu, cuda, cuda:1, tpu ... (none: the best one that the framework finds)")
    precision: Literal["float32", "bfloat16", "float64"] = flag("float32", "data type of the computation")
    engine: str | None = flag(
        None, "how the encoder skips removed patches (none: the best one)", (*TRAIN, "eval", "reconstruct", "probe")
    )
    compile: bool | None = flag(
        None, "torch.compile the steps (none: on CUDA; refused for JAX, which always compiles)", TRAIN
    )
    cuda_graphs: bool | None = flag(None, "torch: replay gradients as CUDA graphs (none: on one GPU)", TRAIN)
    kernels: Literal["auto", "plain", "triton", "pallas"] = flag(
        "auto", "depthwise convolutions by these kernels", (*TRAIN, "eval", *EXTRACT)
    )
    compilation_cache: str = flag(
        "",
        "folder of compiled programs, or off (default: the user's cache; torch: its own)",
        (*TRAIN, "eval", "probe", *EXTRACT),
    )
    grad_checkpointing: bool = flag(False, "recompute each block in the backward pass to save memory", TRAIN)
    seed: int = flag(0, "seed of every random draw", (*TRAIN, "eval", "reconstruct", "probe"), at_least=0)
    parity_check: bool = flag(True, "compare the engine with the masked one before the first step", ("pretrain",))
    output_dir: str = flag(
        "",
        "folder to write to (default: runs/<data>-<task>-<backend>; eval: none)",
        (*TRAIN, "eval", "probe", *INSPECT),
    )
    output: str = flag("", "file to write: predict .csv or .jsonl (default: none), embed .npz or .parquet", EXTRACT)
    log_dir: str = flag("", "folder of TensorBoard events (default: <output_dir>/tb)", TRAIN)
    print_freq: int = flag(20, "log every N updates", TRAIN, at_least=1)
    wandb: str = flag("", "also log to this Weights & Biases project", TRAIN)
    picture_freq: int = flag(20, "save reconstructions every N epochs (0: never)", ("pretrain",), at_least=0)
    picture_channels: tuple[int, ...] | None = flag(
        None,
        "channels shown as RGB, or one, counted from 0 (none: the first three)",
        ("pretrain", "reconstruct"),
        at_least=0,
    )


@dataclass(frozen=True)
class CheckpointConfig(Group):
    """When to save, and what to resume."""

    title = "Checkpoints"
    tasks = TRAIN
    auto_resume: bool = flag(True, "resume from the newest intact checkpoint in output_dir")
    resume: str = flag("", "resume from this checkpoint, run, or .pth of the released scripts", TASKS)
    init_from: str = flag("", "start from the weights of this checkpoint, of any format", ("pretrain",))
    init_scope: Literal["everything", "encoder"] = flag(
        "everything", "what to take of --init_from, where it fits", ("pretrain",)
    )
    start_epoch: int = flag(0, "first epoch when nothing is resumed", at_least=0)
    save_ckpt: bool = flag(True, "save checkpoints")
    save_ckpt_freq: int = flag(1, "save a checkpoint every N epochs", at_least=1)
    save_every_steps: int | None = flag(None, "also save a checkpoint every N updates", at_least=1)
    save_ckpt_num: int = flag(3, "number of newest checkpoints to keep", at_least=1)
    max_steps: int | None = flag(None, "shorten the run, its schedule included, to N updates", at_least=1)
    stop_at_step: int | None = flag(None, "save and stop after update N; the schedule does not change", at_least=1)


@dataclass(frozen=True)
class DataConfig(Group):
    """Where the images are, and how they are read, cropped and normalised."""

    title = "Images"
    data_path: str = flag(DIGITS_PATH, "folder of images, of tar, parquet, IDX or STL-10 files, or an npz file")
    image_key: str | None = flag(None, "extension of the images in tars, such as jpg (none: all images)")
    label_key: str | None = flag(None, "extension of the labels in tars, such as txt or json:FIELD (none: cls)")
    image_column: str | None = flag(None, "column of the images in parquet files (none: image, or the only one)")
    label_column: str | None = flag(None, "column of the labels in parquet files (none: label)")
    mask_key: str | None = flag(
        None,
        "extension in tars, or array in npz, of masks, nonzero = no data; images must be finite there (none: no masks)",
        MASKED,
    )
    mask_column: str | None = flag(None, "column of such masks in parquet files (none: no masks)", MASKED)
    exif: bool = flag(False, "rotate images by their EXIF orientation (published: no)")
    max_image_pixels: int = flag(178_956_970, "skip larger images; the default is Pillow's limit", at_least=1)
    image_bits: int | None = flag(
        None, "significant bits of 16-bit images, whose range is then 0..2^N - 1 (none: 16)", at_least=8, at_most=16
    )
    channel_axis: Literal["first", "last"] | None = flag(
        None, "axis of the channels in arrays (none: the one of length --in_chans)"
    )
    input_size: tuple[int, ...] = flag((224,), "side, or height and width, in pixels")
    crop_scale: tuple[float, ...] = flag(
        (0.2, 1.0), "range of the area of a random crop, 1 = the image", TRAIN, at_least=0
    )
    hflip: float = flag(0.5, "probability of a horizontal flip", TRAIN, at_least=0)
    rot90: float = flag(0.0, "probability of a rotation by 90, 180 or 270 degrees", TRAIN, at_least=0, at_most=1)
    decode: Literal["exact", "scaled"] = flag(
        "exact", "scaled: decode large JPEGs at a reduced size, which is faster", TRAIN
    )
    mean: tuple[float, ...] = flag(IMAGENET["mean"], "mean per channel; uint8 and uint16 count as 0..1")
    std: tuple[float, ...] = flag(IMAGENET["std"], "standard deviation per channel, likewise", at_least=0)
    num_workers: int = flag(
        _threads(), "number of workers that prepare batches", (*TRAIN, "eval", "probe", *EXTRACT), at_least=1
    )
    worker_type: Literal["thread", "process"] = flag("thread", "kind of worker; the batches are the same", TRAIN)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.input_size) not in (1, 2):
            raise TrainError(f"--input_size: {self.input_size} is neither a side nor height and width")
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise TrainError(f"--crop_scale: {self.crop_scale} is no range inside 0..1; the published one is 0.2 1.0")
        if 0 in self.std:
            raise TrainError(f"--std: {self.std} holds a zero, by which no pixel can be divided")

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.input_size[0], self.input_size[-1]


@dataclass(frozen=True)
class ModelConfig(Group):
    """The architecture."""

    title = "Model"
    model: str | None = flag("convnextv2_base", "preset (python -m spec list), or none")
    depths: tuple[int, ...] | None = flag(None, "blocks per stage", at_least=1)
    dims: tuple[int, ...] | None = flag(None, "channels per stage", at_least=1)
    in_chans: int = flag(3, "channels of the images", at_least=1)
    patch_size: int = flag(32, "side of the masked patches, in pixels", at_least=1)
    grn_scope: Literal["image", "batch", "grid"] = flag(
        "image", "what GRN sums over (grid: removed sites, too)", (*TRAIN, "eval", "embed", "reconstruct", "probe")
    )
    norm_eps: float = flag(1e-6, "epsilon of LayerNorm", at_least=0)
    dwconv_bias: bool = flag(True, "give depthwise convolutions a bias")
    mask_ratio: float = flag(0.6, "fraction of patches to remove", MASKED)
    mask_rounding: Literal["floor", "ceil", "round"] = flag(
        "floor", "how visible patches are rounded (VisCy: ceil, SparK: round)", MASKED
    )
    mask_policy: str = flag("uniform", "uniform, block, grid, importance, or package.module:function", MASKED)
    decoder_depth: int = flag(1, "blocks of the decoder", ("pretrain",), at_least=1)
    decoder_embed_dim: int = flag(512, "channels of the decoder", ("pretrain",), at_least=1)
    norm_pix_loss: bool = flag(
        True, "normalise the target by the mean and variance of each patch", ("pretrain", "eval", "reconstruct")
    )

    @property
    def encoder(self) -> dict[str, Any]:
        """The fields of the spec's encoder, without those of the preset."""
        names = ("depths", "dims", "in_chans", "patch_size", "grn_scope", "norm_eps", "dwconv_bias")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class OptimizerConfig(Group):
    """Batch, schedule and AdamW."""

    title = "Optimisation"
    tasks = TRAIN
    batch_size: int = flag(64, "images per micro-batch and device", (*TRAIN, "eval", "probe", *EXTRACT), at_least=1)
    update_freq: int = flag(1, "micro-batches per update (gradient accumulation)", at_least=1)
    epochs: int = flag(800, "number of epochs", at_least=1)
    warmup_epochs: float = flag(40, "epochs of linear warm-up", at_least=0)
    blr: float = flag(1.5e-4, "base learning rate: the peak per 256 images of an update", at_least=0)
    lr: float | None = flag(None, "peak learning rate; overrides --blr", at_least=0)
    min_lr: float = flag(0.0, "learning rate at the end of the cosine", at_least=0)
    weight_decay: float = flag(0.05, "AdamW's weight decay, of convolution and linear weights only", at_least=0)
    opt_betas: tuple[float, ...] = flag((0.9, 0.95), "AdamW's decays of the first and second moment", at_least=0)
    clip_grad: float | None = flag(None, "largest norm of the gradient (published: no clipping)", at_least=0)
    drop_last: bool = flag(True, "leave out the last images of an epoch (False: a smaller update)", ("pretrain",))

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.opt_betas) != 2 or max(self.opt_betas) >= 1:
            raise TrainError(f"--opt_betas: {self.opt_betas} is not two numbers below 1, such as 0.9 0.95")


@dataclass(frozen=True)
class FinetuneConfig(Group):
    """A classifier on top of an encoder, and its evaluation."""

    title = "Fine-tuning and evaluation"
    tasks = ("finetune",)
    finetune: str = flag(
        "", "checkpoint to start from or to use, in any format that convert reads", (*SCORED, *EXTRACT, *INSPECT)
    )
    train_labels: int | None = flag(
        None, "train on N labelled images, balanced over classes (none: all)", ("finetune", "probe"), at_least=1
    )
    nb_classes: int | None = flag(None, "number of classes (default: as many as the data has)", SCORED, at_least=1)
    head_init_scale: float = flag(0.001, "factor on the initial weights of the head", at_least=0, at_most=1)
    drop_path: float = flag(0.0, "drop-path rate of the last block, rising linearly from 0", at_least=0)
    layer_decay: float | None = flag(None, "factor on the learning rate from each layer to the one below", at_least=0)
    layer_decay_type: Literal["single", "group"] = flag("single", "a layer is one block (single) or about three")
    model_ema: bool = flag(False, "keep an exponential moving average (EMA) of the parameters")
    model_ema_decay: float = flag(0.9999, "decay of the EMA per update", at_least=0, at_most=1)
    model_ema_eval: bool = flag(False, "also evaluate the EMA", ("finetune", "eval"))
    eval_data_path: str = flag("", "images to evaluate on (default: the validation split of data_path)", SCORED)
    eval_freq: int = flag(1, "evaluate every N epochs", at_least=1)
    disable_eval: bool = flag(False, "train without evaluation")
    crop_pct: float | None = flag(
        None,
        "fraction of the image that evaluation crops below 384 px (default: 0.875)",
        (*SCORED, *EXTRACT, "analyse"),
        at_least=0.1,
        at_most=1,
    )


@dataclass(frozen=True)
class AugmentConfig(Group):
    """Augmentation in fine-tuning, as published."""

    title = "Augmentation in fine-tuning"
    tasks = ("finetune",)
    aa: str = flag("rand-m9-mstd0.5-inc1", "RandAugment policy in timm's notation, or none")
    smoothing: float = flag(0.1, "label smoothing", at_least=0, at_most=1)
    reprob: float = flag(0.25, "probability of random erasing", at_least=0, at_most=1)
    remode: Literal["pixel", "rand", "const"] = flag("pixel", "fill erased boxes with noise per pixel, per box, or 0")
    recount: int = flag(1, "largest number of boxes erased per image", at_least=1)
    mixup: float = flag(0.0, "alpha of mixup's beta distribution (0: off)", at_least=0, at_most=2)
    cutmix: float = flag(0.0, "alpha of cutmix's beta distribution (0: off)", at_least=0, at_most=2)
    mixup_prob: float = flag(1.0, "probability that a group of images is mixed", at_least=0, at_most=1)
    mixup_switch_prob: float = flag(0.5, "probability of cutmix when mixup is on, too", at_least=0, at_most=1)
    mix_group: int = flag(32, "images that are mixed with each other (published: those of a device)", at_least=2)


@dataclass(frozen=True)
class ClusterConfig(Group):
    """Several devices."""

    title = "Several devices"
    shard: bool = flag(False, "shard parameters, moments and EMA over the devices", (*TRAIN, "eval", "probe"))
    slurm: bool = flag(False, "submit to SLURM; --slurm True --help lists its flags", TASKS)


@dataclass(frozen=True)
class SlurmConfig(Group):
    """Options of a SLURM job."""

    title = "SLURM"
    nodes: int = flag(2, "number of machines", at_least=1)
    ngpus: int = flag(8, "GPUs per machine; with --device cpu, processes per machine", at_least=1)
    timeout: int = flag(4320, "minutes until the run saves and is queued again", at_least=5)
    partition: str | None = flag(None, "SLURM partition")
    constraint: str | None = flag(None, "constraint on the machines, as in sbatch")
    comment: str | None = flag(None, "comment for the scheduler, as in sbatch")
    cpus_per_task: int = flag(10, "cores per process", at_least=1)
    mem_gb: int | None = flag(None, "memory per machine in GB (default: SLURM's)", at_least=1)


@dataclass(frozen=True)
class InspectConfig(Group):
    """Predictions, features, reconstructions and analysis of a checkpoint."""

    title = "Predictions, features, reconstructions and analysis"
    tasks = INSPECT
    images: tuple[str, ...] | None = flag(
        None, "image files, folders or patterns to use instead of data_path", (*EXTRACT, *INSPECT)
    )
    stages: tuple[int, ...] | None = flag(
        None, "write the feature maps of these stages, from 0 (none: pooled, normalised features)", ("embed",)
    )
    split: Literal["train", "val"] | None = flag(
        None, "part of data_path to use (none: val, or everything where it is not divided)", (*EXTRACT, *INSPECT)
    )
    num_images: int = flag(8, "number of images of data_path to use", at_least=1)
    against: tuple[str, ...] | None = flag(None, "more checkpoints, for curves in the same plot", ("analyse",))


@dataclass(frozen=True)
class ProbeConfig(Group):
    """Probes of a frozen encoder."""

    title = "Probes"
    tasks = ("probe",)
    knn_k: tuple[int, ...] = flag((10, 20), "numbers of nearest neighbours to try", at_least=1)
    knn_temperature: float = flag(0.07, "temperature T of a vote exp(similarity / T)", at_least=0.01)
    probe_l2: tuple[float, ...] = flag(
        (1e-5, 1e-4, 1e-3, 1e-2, 1e-1), "L2 penalties that the linear probe chooses from", at_least=1e-9
    )
