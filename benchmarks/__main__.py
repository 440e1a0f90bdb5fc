"""`python -m benchmarks`: engines side by side, the sweep over mask ratios, the roofline and the guard."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import backends
import spec
from benchmarks import curves, engines, guard, roofline
from benchmarks.errors import BenchmarkError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark; returns the exit status, 2 after one line about a mistake."""
    args = _parser().parse_args(argv)
    try:
        return COMMANDS[args.command](args)
    except (spec.SpecError, BenchmarkError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2


def _engines(args: argparse.Namespace) -> int:
    rows = engines.measure(engines.jobs(args, args.mask_ratio), args.rounds)
    print(engines.table(rows, args))
    _write(args.json, rows)
    return 0


def _sweep(args: argparse.Namespace) -> int:
    """Cost against mask ratio: it must fall with the ratio for the visible engine."""
    found = []
    for ratio in args.mask_ratios:
        rows = engines.measure(engines.jobs(args, ratio), args.rounds)
        found += rows
        print(f"mask ratio {ratio:g}\n{engines.table(rows, args)}\n", flush=True)
    _write(args.json, found)
    if args.picture:
        curves.draw(found, args.picture)
    return 0


def _roofline(args: argparse.Namespace) -> int:
    model = spec.fcmae(args.model, image_size=args.image_size, mask_ratio=args.mask_ratio)
    options = {"dtype": args.dtype, "what": args.what, "part": args.part}
    found = roofline.bounds(model, args.batch_size, **options)
    print(roofline.table(model, found, args.tflops, args.gbps, args.batch_size))
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


COMMANDS = {"engines": _engines, "sweep": _sweep, "roofline": _roofline, "guard": _guard}


def _write(path: str | None, rows: list[engines.Row]) -> None:
    if path:
        document = {"machine": engines.machine(), "rows": [row.as_dict() for row in rows]}
        Path(path).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    timed = argparse.ArgumentParser(add_help=False, parents=[_shared("gradient", None, None)])
    timed.add_argument("--model", default="convnextv2_atto")
    timed.add_argument("--backends", nargs="+", choices=backends.NAMES, default=list(backends.installed()))
    timed.add_argument("--engines", nargs="+", default=None, help="all that are installed by default")
    timed.add_argument("--compiled", action="store_true", help="add rows under torch.compile")
    timed.add_argument("--device", default=None)
    timed.add_argument("--rounds", type=int, default=9, help="timed steps of each row, taken in turn")
    timed.add_argument("--json", default=None, help="write the rows there too")

    one = commands.add_parser("engines", parents=[timed], help="seconds a step and peak memory of every engine")
    one.add_argument("--mask_ratio", type=float, default=0.6)
    sweep = commands.add_parser("sweep", parents=[timed], help="the same over mask ratios")
    sweep.add_argument("--mask_ratios", type=float, nargs="+", default=[0.0, 0.3, 0.6, 0.75, 0.9])
    sweep.add_argument("--picture", default=None, help="draw the curves there, as .svg or .png")

    limit = commands.add_parser(
        "roofline", parents=[_shared("step", 790.0, 4300.0)], help="the time that no implementation can beat"
    )
    limit.add_argument("model")
    limit.add_argument("--mask_ratio", type=float, default=0.6)

    held = commands.add_parser("guard", help="FLOPs, bytes, operations and registers against the committed baseline")
    held.add_argument("--update", action="store_true", help="the figures found become the baseline")
    return parser


def _shared(what: str, tflops: float | None, gbps: float | None) -> argparse.ArgumentParser:
    """The options of every command, with its own defaults."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--batch_size", type=int, default=8)
    shared.add_argument("--image_size", type=int, default=224)
    shared.add_argument("--dtype", choices=("float32", "bfloat16", "float64"), default="float32")
    shared.add_argument("--what", choices=("forward", "gradient", "step"), default=what)
    shared.add_argument("--part", choices=("encoder", "fcmae"), default="fcmae")
    shared.add_argument("--tflops", type=float, default=tflops, help="peak of the device, for the roofline")
    shared.add_argument("--gbps", type=float, default=gbps, help="its memory bandwidth in GB/s")
    return shared


if __name__ == "__main__":
    sys.exit(main())
