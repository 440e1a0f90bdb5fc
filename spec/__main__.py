"""`python -m spec list` and `python -m spec show NAME`: the sizes and the anatomy of the models."""

import argparse
import sys
from collections.abc import Iterable, Sequence

from spec.console import Parser, closing_pipe, fail, table
from spec.constructors import classifier, fcmae
from spec.cost import macs, step_macs, visible_patches
from spec.errors import SpecError
from spec.model import FCMAE, Classifier
from spec.parameters import count, parameters
from spec.presets import PRESETS

Row = tuple[str, ...]


@closing_pipe()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 2 after one line about a mistake."""
    args = _parser().parse_args(argv)
    try:
        print(_sizes() if args.command == "list" else _show(args))
    except SpecError as error:
        return fail("spec", error)
    return 0


def _parser() -> Parser:
    parser = Parser("python -m spec", description="Show the architecture.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the presets, with parameters and multiply-accumulates (MACs)")
    show = commands.add_parser("show", help="stages, parameters and MACs of one preset")
    show.add_argument("preset")
    show.add_argument("--image_size", type=int, nargs="+", default=[224], metavar="PX", help="side, or height width")
    show.add_argument("--mask_ratio", type=float, default=0.6)
    show.add_argument("--num_classes", type=int, default=1000)
    return parser


def _sizes() -> str:
    rows: list[Row] = [("preset", "depths", "dims", "classifier", "FCMAE", "MACs at 224")]
    for name, size in PRESETS.items():
        dense, masked = classifier(name), fcmae(name)
        parameters = _thousands(count(dense)), _thousands(count(masked))
        rows.append((name, _join(size["depths"]), _join(size["dims"]), *parameters, _giga(macs(dense))))
    return table(rows, "<>", heading=True)


def _show(args: argparse.Namespace) -> str:
    side = args.image_size[0] if len(args.image_size) == 1 else tuple(args.image_size)
    dense = classifier(args.preset, num_classes=args.num_classes)
    masked = fcmae(args.preset, image_size=side, mask_ratio=args.mask_ratio)
    (height, width), (rows, columns) = masked.image_size, masked.grid
    patch, visible = masked.encoder.patch_size, visible_patches(masked)
    title = f"{args.preset}: {height} x {width} px, patches of {patch} px, {visible} of {rows * columns} visible"
    return f"{title}\n\n{table(_anatomy(masked, dense, visible), '<>', heading=True)}"


def _anatomy(masked: FCMAE, dense: Classifier, visible: int) -> list[Row]:
    """A row per part of the autoencoder, its total, and the total of the classifier."""
    encoder, size = masked.encoder, masked.image_size
    rows: list[Row] = [("part", "sites", "channels", "blocks", "parameters", "MACs dense", f"MACs, {visible} visible")]
    for stage, (depth, dim) in enumerate(zip(encoder.depths, encoder.dims, strict=True)):
        stride = encoder.stem_stride * 2**stage
        sites = f"{size[0] // stride} x {size[1] // stride}"
        for part, blocks in ((f"downsample_layers.{stage}", ""), (f"stages.{stage}", str(depth))):
            rows.append((part, sites, str(dim), blocks, *_costs(masked, f"encoder.{part}", visible)))
    grid = f"{masked.grid[0]} x {masked.grid[1]}"
    for part, dim, blocks in (
        ("proj", masked.decoder_dim, ""),
        ("mask_token", masked.decoder_dim, ""),
        ("decoder", masked.decoder_dim, str(masked.decoder_depth)),
        ("pred", masked.patch_values, ""),
    ):
        rows.append((part, grid, str(dim), blocks, *_costs(masked, part, visible)))
    totals = _thousands(count(masked)), _giga(macs(masked)), _giga(macs(masked, visible))
    rows.append(("FCMAE", "", "", "", *totals))
    cost = _giga(macs(dense, image_size=size))
    rows.append(("classifier", "", str(dense.num_classes), "", _thousands(count(dense)), cost, ""))
    return rows


def _costs(model: FCMAE, prefix: str, visible: int) -> Row:
    """Parameters, dense MACs and visible MACs of everything at and under the path `prefix`."""

    def inside(path: str) -> bool:
        return path == prefix or path.startswith(f"{prefix}.")

    size = sum(param.size for path, param in parameters(model).items() if inside(path))
    dense, sparse = (sum(cost for path, cost in step_macs(model, kept) if inside(path)) for kept in (None, visible))
    return _thousands(size), _giga(dense), _giga(sparse)


def _join(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))


def _thousands(value: int) -> str:
    return f"{value:,}"


def _giga(value: int) -> str:
    return f"{value / 1e9:.3f} G"


if __name__ == "__main__":
    sys.exit(main())
