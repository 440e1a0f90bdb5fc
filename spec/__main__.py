"""`python -m spec list` and `python -m spec show NAME`: the sizes and the anatomy of the models."""

import argparse
import sys
from collections.abc import Iterable, Sequence

from spec.cost import macs, step_macs, visible_patches
from spec.errors import SpecError
from spec.model import Model, classifier, fcmae
from spec.parameters import count, parameters
from spec.presets import PRESETS


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was asked for; returns the exit status, 2 after one line about a mistake."""
    parser = argparse.ArgumentParser(prog="python -m spec", description="Look at the architecture.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the presets, with parameters and MACs")
    show = commands.add_parser("show", help="stages, parameters and MACs of one preset")
    show.add_argument("preset")
    show.add_argument("--image_size", type=int, nargs="+", default=[224], metavar="PX", help="side, or height width")
    show.add_argument("--mask_ratio", type=float, default=0.6)
    show.add_argument("--num_classes", type=int, default=1000)
    args = parser.parse_args(argv)
    try:
        print(_presets() if args.command == "list" else _anatomy(args))
    except SpecError as error:
        print(f"spec: {error}", file=sys.stderr)
        return 2
    return 0


def _presets() -> str:
    rows = [("preset", "depths", "dims", "classifier", "FCMAE", "MACs at 224")]
    for name, size in PRESETS.items():
        dense, masked = classifier(name), fcmae(name)
        rows.append((name, _join(size["depths"]), _join(size["dims"]), *map(_thousands, (count(dense), count(masked))), _giga(macs(dense))))
    return _table(rows)


def _anatomy(args: argparse.Namespace) -> str:
    side = args.image_size[0] if len(args.image_size) == 1 else tuple(args.image_size)
    masked = fcmae(args.preset, image_size=side, mask_ratio=args.mask_ratio)
    dense = classifier(args.preset, num_classes=args.num_classes)
    visible = visible_patches(masked)
    rows = [("part", "sites", "channels", "blocks", "parameters", "MACs dense", f"MACs, {visible} visible")]
    encoder = masked.encoder
    height, width = masked.image_size
    for stage, (depth, dim) in enumerate(zip(encoder.depths, encoder.dims, strict=True)):
        stride = encoder.stem_stride * 2**stage
        for part, blocks in ((f"downsample_layers.{stage}", ""), (f"stages.{stage}", str(depth))):
            sites = f"{height // stride} x {width // stride}"
            rows.append(_row(masked, f"encoder.{part}", visible, part, sites, str(dim), blocks))
    grid = f"{masked.grid[0]} x {masked.grid[1]}"
    for part, blocks in (("proj", ""), ("mask_token", ""), ("decoder", str(masked.decoder_depth)), ("pred", "")):
        width_out = masked.patch_values if part == "pred" else masked.decoder_dim
        rows.append(_row(masked, part, visible, part, grid, str(width_out), blocks))
    total = count(masked), macs(masked), macs(masked, visible)
    rows.append(("FCMAE", "", "", "", _thousands(total[0]), _giga(total[1]), _giga(total[2])))
    cost = macs(dense, image_size=masked.image_size)
    rows.append(("classifier", "", str(args.num_classes), "", _thousands(count(dense)), _giga(cost), ""))
    title = f"{args.preset}: {height} x {width} px, patches of {encoder.patch_size} px, {visible} of {masked.grid[0] * masked.grid[1]} visible"
    return f"{title}\n\n{_table(rows)}"


def _row(model: Model, prefix: str, visible: int, *cells: str) -> tuple[str, ...]:
    """The cells, then parameters, dense MACs and visible MACs of everything under the path `prefix`."""

    def inside(path: str) -> bool:
        return path == prefix or path.startswith(f"{prefix}.")

    size = sum(_product(param.shape) for path, param in parameters(model).items() if inside(path))
    costs = (sum(cost for path, cost in step_macs(model, kept) if inside(path)) for kept in (None, visible))
    return (*cells, _thousands(size), *map(_giga, costs))


def _product(shape: Iterable[int]) -> int:
    result = 1
    for side in shape:
        result *= side
    return result


def _join(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))


def _thousands(value: int) -> str:
    return f"{value:,}"


def _giga(value: int) -> str:
    return f"{value / 1e9:.3f} G"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths, strict=True))) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


if __name__ == "__main__":
    sys.exit(main())
