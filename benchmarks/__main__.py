"""`python -m benchmarks`: time, memory, FLOPs and bytes of the engines, of the data pipeline and of the kernels."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import backends
import spec
from backends.protocol import BackendError
from benchmarks import curves, engines, guard, memory, peaks, roofline, tables
from benchmarks.errors import BenchmarkError
from spec.console import Parser, closing_pipe, fail


@closing_pipe()
def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark; returns the exit status, 2 after one line about a mistake."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except (spec.SpecError, BackendError, BenchmarkError) as error:
        return fail("benchmarks", error)


def _engines(args: argparse.Namespace) -> int:
    peak = peaks.find(args.peak, args.dtype, args.device, args.tflops, args.gbps)
    rows = engines.measure(engines.jobs(args), args.rounds)
    print(tables.table(rows, peak))
    _write(args.json, tables.document(rows, peak))
    return 0


def _gpu(args: argparse.Namespace) -> int:
    """Returns 1 if a row or a profile is missing."""
    from benchmarks import gpu

    peak = peaks.find(args.peak, args.dtype, args.device, args.tflops, args.gbps)
    shared = {name: getattr(args, name) for name in ("model", "batch_size", "image_size", "dtype", "device")}
    found = gpu.measure((gpu.VISIBLE, gpu.OTHERS), shared, args.rounds, args.seconds)
    text = gpu.markdown(found, (*gpu.VISIBLE, *gpu.OTHERS), gpu.device_name(args.device), peak)
    print(text, flush=True)
    _write(args.json, gpu.document(found, peak))
    if args.markdown:
        Path(args.markdown).write_text(text, encoding="utf-8")
    return 1 if found.missing else 0


def _sweep(args: argparse.Namespace) -> int:
    """Returns 1 if the visible engine does not get faster with every step of the mask ratio."""
    peak, found = peaks.find(args.peak, args.dtype, args.device, args.tflops, args.gbps), []
    number = float if args.over == "mask_ratio" else int
    for value in args.values or curves.AXES[args.over]:
        rows = engines.measure(engines.jobs(args, **{args.over: number(value)}), args.rounds)
        found += rows
        print(f"{args.over} {value:g}\n{tables.table(rows, peak)}\n", flush=True)
    _write(args.json, tables.document(found, peak, args.over))
    lines = curves.rises(found) if args.over == "mask_ratio" else []
    print("\n".join(lines))
    return 1 if lines else 0


def _plot(args: argparse.Namespace) -> int:
    curves.draw([json.loads(Path(path).read_text(encoding="utf-8")) for path in args.files], args.out)
    return 0


def _data(args: argparse.Namespace) -> int:
    from benchmarks import data, photographs

    if args.batch_size % data.GROUP:
        raise BenchmarkError(f"--batch_size {args.batch_size}: mixing works on groups of {data.GROUP}; give a multiple")
    source = photographs.Photographs.make(args.images, *args.size)
    speeds = data.measure(source, args.batch_size, args.batches, args.rounds)
    print(tables.describe_machine())
    print(data.table(speeds, source))
    _write(args.json, {"machine": tables.machine(), "rows": [speed.as_dict() for speed in speeds]})
    return 0


def _roofline(args: argparse.Namespace) -> int:
    options = {"dtype": args.dtype, "what": args.what, "part": args.part}
    found = roofline.bounds(_fcmae(args), args.batch_size, **options)
    peak = peaks.find(args.peak, args.dtype, None, args.tflops, args.gbps)
    print(roofline.table(found, peak.tflops, peak.gbps, args.batch_size))
    return 0


def _memory(args: argparse.Namespace) -> int:
    print(memory.table(_fcmae(args), args.model, args.batch_size, args.dtype, ema=args.ema))
    return 0


def _tpu(args: argparse.Namespace) -> int:
    if "jax" not in backends.installed():
        raise BenchmarkError("tpu: needs JAX; pip install 'twinnext[aot]'")
    from benchmarks import tpu

    unused = ["part"] if args.what == "step" else ["num_classes", "update_freq", "shard", "ema"]
    unused += ["mask_ratio"] if args.num_classes else []
    if wrong := [f"--{name}" for name in unused if getattr(args, name)]:
        raise BenchmarkError(f"{wrong[0]}: has no effect on this {args.what}; leave it out")
    model = spec.classifier(args.model, num_classes=args.num_classes) if args.num_classes else _fcmae(args)
    options = {"remat": args.grad_checkpointing, "update_freq": args.update_freq or 1}
    options |= {name: getattr(args, name) for name in ("what", "dtype", "shard", "ema")}
    work = tpu.Work(model, (args.image_size,) * 2, args.batch_size, part=args.part or "encoder", **options)
    print(tpu.table(work, args.model, args.topology))
    return 0


def _guard(args: argparse.Namespace) -> int:
    """Returns 1 if a deterministic figure differs from its baseline; --update makes the figures the baseline."""
    found = {row: figures for name in guard.measurable() for row, figures in guard.measure(name).items()}
    if args.update:
        guard.write(found)
        return 0
    lines = guard.moved(found, guard.read()["figures"])
    print("\n".join(lines) or f"all {sum(map(len, found.values()))} figures equal the baseline")
    return 1 if lines else 0


def _fcmae(args: argparse.Namespace) -> spec.FCMAE:
    ratio = 0.6 if args.mask_ratio is None else args.mask_ratio
    return spec.fcmae(args.model, image_size=args.image_size, mask_ratio=ratio)


def _write(path: str | None, document: dict[str, Any]) -> None:
    if path:
        Path(path).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _parser() -> Parser:
    parser = Parser("python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], help: str, *parents: Parser) -> Parser:
        command = commands.add_parser(name, parents=parents, help=help, description=help)
        command.set_defaults(run=run)
        return command

    timed = _timed()
    add("engines", _engines, "time and peak memory of every engine, one row each", timed)
    sweep = add("sweep", _sweep, "the same over mask ratios, batch sizes or image sizes", timed)
    sweep.add_argument("--over", choices=tuple(curves.AXES), default="mask_ratio")
    sweep.add_argument("--values", type=float, nargs="+", help="values to measure at")
    whole = add("gpu", _gpu, "whole steps of both frameworks and of timm on one GPU, and where their time goes")
    whole.add_argument("--model", default="convnextv2_base")
    whole.add_argument("--batch_size", type=int, default=256, help="some rows take a half or a quarter")
    whole.add_argument("--image_size", type=int, default=224)
    whole.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    whole.add_argument("--device", default="cuda")
    whole.add_argument("--rounds", type=int, default=15, help="timed steps per row, taken in turn")
    whole.add_argument("--seconds", type=float, default=900, help="leave out what is not measured by then")
    whole.add_argument("--json", help="write the rows and kernels to this file")
    whole.add_argument("--markdown", help="write the table to this file too")
    _peak(whole)
    plot = add("plot", _plot, "plot the JSON files of sweeps")
    plot.add_argument("files", nargs="+")
    plot.add_argument("--out", required=True, help=".svg or .png")

    data = add("data", _data, "JPEG to batch: images per second, against plain Pillow")
    data.add_argument("--images", type=int, default=64, help="number of different JPEGs")
    data.add_argument("--size", type=int, nargs=2, default=(400, 500), metavar=("HEIGHT", "WIDTH"))
    data.add_argument("--batch_size", type=int, default=64)
    data.add_argument("--batches", type=int, default=3, help="timed batches per worker and round")
    data.add_argument("--rounds", type=int, default=3)
    data.add_argument("--json", help="write the figures to this file too")

    bound = add("roofline", _roofline, "the least time a device can take, from FLOPs and bytes", _job("step", "fcmae"))
    bound.add_argument("model")
    guarded = add("guard", _guard, "compare FLOPs, bytes, operations and registers with the committed baseline")
    guarded.add_argument("--update", action="store_true", help="make the figures found the baseline")

    absent = _absent_device()
    add("memory", _memory, "memory of a training step in torch, counted without a device", absent)
    tpu = add("tpu", _tpu, "cost of JAX's programs on TPUs, by their compiler, without a TPU", absent)
    tpu.add_argument("--topology", default="v5e:1x1", help="such as v4:2x2x1")
    tpu.add_argument("--what", choices=("gradient", "step"), default="gradient", help="step: on all devices")
    tpu.add_argument("--part", choices=("encoder", "fcmae"), default=None, help="of a gradient; the encoder by default")
    tpu.add_argument("--num_classes", type=int, help="a classifier's step, as in fine-tuning")
    tpu.add_argument("--update_freq", type=int, help="micro-batches per update")
    tpu.add_argument("--shard", action="store_true", help="split parameters, moments and EMA over the devices")
    tpu.add_argument("--grad_checkpointing", action="store_true", help="recompute blocks in the backward pass")
    return parser


def _timed() -> Parser:
    """The options of timed rows."""
    timed = Parser(add_help=False, parents=[_job("gradient", "fcmae")])
    timed.add_argument("--model", default="convnextv2_atto")
    timed.add_argument("--backends", nargs="+", choices=backends.NAMES, default=list(backends.installed()))
    timed.add_argument("--engines", nargs="+", help="all by default; dense is timm's encoder")
    timed.add_argument("--compiled", action="store_true", help="add rows under torch.compile")
    timed.add_argument("--device")
    timed.add_argument("--rounds", type=int, default=9, help="timed steps per row, taken in turn")
    timed.add_argument("--json", help="write the rows to this file too")
    return timed


def _job(what: str, part: str) -> Parser:
    """The options of a computation and of the peak that it is compared with."""
    job = Parser(add_help=False)
    job.add_argument("--batch_size", type=int, default=8)
    job.add_argument("--image_size", type=int, default=224)
    job.add_argument("--mask_ratio", type=float, default=0.6)
    job.add_argument("--dtype", choices=("float32", "bfloat16", "float64"), default="float32")
    job.add_argument("--what", choices=("forward", "gradient", "step"), default=what)
    job.add_argument("--part", choices=("encoder", "fcmae"), default=part)
    _peak(job)
    return job


def _peak(parser: Parser) -> None:
    parser.add_argument("--peak", choices=peaks.NAMES, default=peaks.MEASURED, help="the device's peak performance")
    parser.add_argument("--tflops", type=float, help="or its peak in TFLOP/s")
    parser.add_argument("--gbps", type=float, help="and its memory bandwidth in GB/s")


def _absent_device() -> Parser:
    """The options of what is counted for a device that is not here."""
    absent = Parser(add_help=False)
    absent.add_argument("model")
    absent.add_argument("--batch_size", type=int, default=64, help="images per device and micro-batch")
    absent.add_argument("--image_size", type=int, default=224)
    absent.add_argument("--mask_ratio", type=float, help="0.6 by default")
    absent.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    absent.add_argument("--ema", action="store_true", help="keep an EMA of the parameters too")
    return absent


if __name__ == "__main__":
    sys.exit(main())
