"""The command `export`: a checkpoint as a program for another runtime, verified as soon as it is written."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convert import Checkpoint, files, preparation, report, surgery
from convert.arguments import add_input, load_input, output_beside, status
from export.signature import Signature
from export.verify import SIZES
from export.write import KINDS, TARGETS, Written, write
from spec.console import Parser, closing_pipe, escape_unprintable


@closing_pipe()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 2 after one line about a mistake or a program that is not the model."""
    escape_unprintable()
    return status("export", _export, _parser().parse_args(argv))


def _parser() -> Parser:
    text = "Export a checkpoint as a program for another runtime, and compare it there with the backend in float64."
    parser = Parser("export", description=text)
    add_input(parser)
    kinds = "kind of program; torch's takes images of 2 x 2 patches and more"
    parser.add_argument("--to", choices=list(TARGETS), required=True, help=kinds)
    parser.add_argument("-o", "--output", type=Path, help="the file to write (default: beside the input)")
    parser.add_argument("--features", action="store_true", help="return feature maps in place of the model's outputs")
    parser.add_argument("--stages", type=int, nargs="+", metavar="N", help="feature maps of these stages, from 0 on")
    parser.add_argument("--mask", action="store_true", help="take a mask (N, G_h, G_w), 1 = removed, as second input")
    parser.add_argument("--layout", choices=("NHWC", "NCHW"), default="NHWC", help="axes of images and feature maps")
    parser.add_argument("--dtype", choices=KINDS, default="float32", help="dtype of parameters and computation")
    parser.add_argument("--ema", action="store_true", help="use the EMA instead of the parameters")
    parser.add_argument("--force", action="store_true", help="replace an existing output")
    return parser


def _export(args: argparse.Namespace) -> int:
    checkpoint = load_input(args, weights_only=not args.ema)
    checkpoint = surgery.use_ema(checkpoint) if args.ema else checkpoint
    signature = Signature.of(
        checkpoint.model, features=args.features, stages=args.stages, masked=args.mask, layout=args.layout
    )
    output = args.output or output_beside(args.input, TARGETS[args.to].suffix)
    beside = output.with_name(f"{output.name}.json")
    with files.replacing(beside, args.force) as aside:
        written = write(checkpoint, output, args.to, signature, args.dtype, args.force)
        about = description(checkpoint, signature, written, args.dtype)
        aside.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(f"{args.input}: {report.summary(checkpoint)}")
    for note in checkpoint.notes:
        print(f"note: {note}")
    print("\n".join(f"{name} {shape}" for name, shape in about["inputs"].items()))
    unit = f", {about['unit']}" if about["unit"] else ""
    print(f"images are normalised by {_normalisation(about['images'])}{unit}")
    patch = checkpoint.model.encoder.patch_size
    sizes = " and ".join(f"{n} x {h * patch} x {w * patch} px" for n, h, w in SIZES)
    print(f"in {written.runtime} against the backend in float64, at {sizes}:")
    print("\n".join(f"  {gap}" for gap in written.gaps))
    print(f"{output}: written, {args.to}, {args.dtype}, {written.nbytes / 1e6:.1f} MB; {output.name}.json describes it")
    return 0


def description(checkpoint: Checkpoint, signature: Signature, written: Written, dtype: str) -> dict[str, Any]:
    """What a user of the file must know: inputs, how images are prepared, classes, and what was verified."""
    images = preparation.recorded(checkpoint.meta)
    known = {"mean", "std"} <= images.keys() or "values" in checkpoint.meta
    return {
        "inputs": dict(zip(signature.inputs, signature.described(), strict=True)),
        "outputs": list(signature.outputs),
        "dtype": dtype,
        "images": images,
        "unit": preparation.unit(checkpoint.meta) if known else None,
        "classes": checkpoint.classes,
        "verified": {"in": written.runtime, **{gap.output: gap._asdict() for gap in written.gaps}},
    }


def _normalisation(images: dict[str, Any]) -> str:
    """The mean and std of the run, in words."""
    if "mean" not in images or "std" not in images:
        return "a mean and std that the checkpoint does not record"
    return f"mean {' '.join(map(str, images['mean']))} and std {' '.join(map(str, images['std']))}"


if __name__ == "__main__":
    sys.exit(main())
