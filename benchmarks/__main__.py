"""`python -m benchmarks`: engines side by side, sweeps and their picture, data, the roofline and the guard."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import backends
import spec
from backends.protocol import BackendError
from benchmarks import curves, engines, guard, memory, peaks, roofline, tables, tpu
from benchmarks.errors import BenchmarkError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark; returns the exit status, 2 after one line about a mistake."""
    args = _parser().parse_args(argv)
    try:
        return COMMANDS[args.command](args)
    except (spec.SpecError, BackendError, BenchmarkError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2


def _engines(args: argparse.Namespace) -> int:
    peak = peaks.find(args.peak, args.dtype, args.device, args.tflops, args.gbps)
    rows = engines.measure(engines.jobs(args), args.rounds)
    print(tables.table(rows, peak))
    if args.json:
        _write(args.json, tables.document(rows, peak))
    return 0


def _sweep(args: argparse.Namespace) -> int:
    """Cost against mask ratio, batch or image size; 1 where visible does not get cheaper with every ratio."""
    peak, found = peaks.find(args.peak, args.dtype, args.device, args.tflops, args.gbps), []
    number = float if args.over == "mask_ratio" else int
    for value in args.values or curves.AXES[args.over]:
        rows = engines.measure(engines.jobs(args, **{args.over: number(value)}), args.rounds)
        found += rows
        print(f"{args.over} {value:g}\n{tables.table(rows, peak)}\n", flush=True)
    if args.json:
        _write(args.json, tables.document(found, peak, args.over))
    lines = curves.rises(found) if args.over == "mask_ratio" else []
    print("\n".join(lines))
    return 1 if lines else 0


def _picture(args: argparse.Namespace) -> int:
    curves.draw([json.loads(Path(path).read_text(encoding="utf-8")) for path in args.files], args.out)
    return 0


def _data(args: argparse.Namespace) -> int:
    from benchmarks import data, photographs

    if args.batch_size % data.GROUP:
        raise BenchmarkError(f"--batch_size {args.batch_size}: mixing pairs {data.GROUP} images; give a multiple")
    source = photographs.Photographs.make(args.images, *args.size)
    speeds = data.measure(source, args.batch_size, args.batches, args.rounds)
    print(", ".join(f"{key} {value}" for key, value in tables.machine().items()))
    print(data.table(speeds, source))
    if args.json:
        _write(args.json, {"machine": tables.machine(), "rows": [speed.as_dict() for speed in speeds]})
    return 0


def _roofline(args: argparse.Namespace) -> int:
    model = spec.fcmae(args.model, image_size=args.image_size, mask_ratio=args.mask_ratio)
    options = {"dtype": args.dtype, "what": args.what, "part": args.part}
    found = roofline.bounds(model, args.batch_size, **options)
    peak = peaks.find(args.peak, args.dtype, None, args.tflops, args.gbps)
    print(roofline.table(found, peak.tflops, peak.gbps, args.batch_size))
    return 0


def _memory(args: argparse.Namespace) -> int:
    model = spec.fcmae(args.model, image_size=args.image_size, mask_ratio=args.mask_ratio)
    print(memory.table(model, args.model, args.batch_size, args.dtype, ema=args.ema))
    return 0


def _tpu(args: argparse.Namespace) -> int:
    model = spec.fcmae(args.model, image_size=args.image_size, mask_ratio=args.mask_ratio)
    options = {"part": args.part, "dtype": args.dtype, "remat": args.grad_checkpointing}
    print(tpu.table(model, args.model, args.topology, args.batch_size, **options))
    return 0


def _guard(args: argparse.Namespace) -> int:
    """1 where a deterministic figure left its baseline; with --update, make what is found the baseline."""
    found = {row: figures for name in guard.measurable() for row, figures in guard.measure(name).items()}
    if args.update:
        guard.write(found)
        return 0
    lines = guard.moved(found, guard.read()["figures"])
    print("\n".join(lines) or f"all {sum(map(len, found.values()))} figures are where they were")
    return 1 if lines else 0


COMMANDS = {
    "engines": _engines,
    "sweep": _sweep,
    "picture": _picture,
    "data": _data,
    "roofline": _roofline,
    "guard": _guard,
    "memory": _memory,
    "tpu": _tpu,
}


def _write(path: str, document: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    timed = argparse.ArgumentParser(add_help=False, parents=[_shared("gradient")])
    timed.add_argument("--model", default="convnextv2_atto")
    timed.add_argument("--backends", nargs="+", choices=backends.NAMES, default=list(backends.installed()))
    timed.add_argument("--engines", nargs="+", default=None, help="all by default; dense is timm's encoder")
    timed.add_argument("--compiled", action="store_true", help="add rows under torch.compile")
    timed.add_argument("--device", default=None)
    timed.add_argument("--rounds", type=int, default=9, help="timed steps of each row, taken in turn")
    timed.add_argument("--json", default=None, help="write the rows there too")

    commands.add_parser("engines", parents=[timed], help="seconds a step and peak memory of every engine")
    sweep = commands.add_parser("sweep", parents=[timed], help="the same over mask ratios, batches or image sizes")
    sweep.add_argument("--over", choices=tuple(curves.AXES), default="mask_ratio")
    sweep.add_argument("--values", type=float, nargs="+", default=None, help="where to measure")
    picture = commands.add_parser("picture", help="the curves of some sweeps' JSON files")
    picture.add_argument("files", nargs="+")
    picture.add_argument("--out", required=True, help=".svg or .png")

    fed = commands.add_parser("data", help="JPEG to batch: images a second, against plain Pillow")
    fed.add_argument("--images", type=int, default=64, help="how many different ones")
    fed.add_argument("--size", type=int, nargs=2, default=(400, 500), help="their height and width")
    fed.add_argument("--batch_size", type=int, default=64)
    fed.add_argument("--batches", type=int, default=3, help="timed ones of each worker, in a round")
    fed.add_argument("--rounds", type=int, default=3)
    fed.add_argument("--json", default=None, help="write the figures there too")

    limit = commands.add_parser("roofline", parents=[_shared("step")], help="the time that no implementation can beat")
    limit.add_argument("model")

    held = commands.add_parser("guard", help="FLOPs, bytes, operations and registers against the committed baseline")
    held.add_argument("--update", action="store_true", help="the figures found become the baseline")

    big = argparse.ArgumentParser(add_help=False)
    big.add_argument("model")
    big.add_argument("--batch_size", type=int, default=64)
    big.add_argument("--image_size", type=int, default=224)
    big.add_argument("--mask_ratio", type=float, default=0.6)
    big.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    counted = commands.add_parser("memory", parents=[big], help="what a step in torch holds, counted without a device")
    counted.add_argument("--ema", action="store_true", help="keep a moving average of the parameters too")
    compiled = commands.add_parser("tpu", parents=[big], help="what JAX's gradient costs a TPU that is not here")
    compiled.add_argument("--topology", default="v5e:1x1", help="such as v4:2x2x1; compiled for one of its devices")
    compiled.add_argument("--part", choices=("encoder", "fcmae"), default="encoder")
    compiled.add_argument("--grad_checkpointing", action="store_true", help="compute blocks again in the backward pass")
    return parser


def _shared(what: str) -> argparse.ArgumentParser:
    """The options of every command, with its own default of what is done."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--batch_size", type=int, default=8)
    shared.add_argument("--image_size", type=int, default=224)
    shared.add_argument("--mask_ratio", type=float, default=0.6)
    shared.add_argument("--dtype", choices=("float32", "bfloat16", "float64"), default="float32")
    shared.add_argument("--what", choices=("forward", "gradient", "step"), default=what)
    shared.add_argument("--part", choices=("encoder", "fcmae"), default="fcmae")
    shared.add_argument("--peak", choices=peaks.NAMES, default=peaks.MEASURED, help="what the device can do at most")
    shared.add_argument("--tflops", type=float, default=None, help="or its arithmetic in figures")
    shared.add_argument("--gbps", type=float, default=None, help="and its memory bandwidth in GB/s")
    return shared


if __name__ == "__main__":
    sys.exit(main())
