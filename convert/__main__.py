"""The command `convert`: torch2jax, jax2torch, translate, inspect, verify."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from convert import report, surgery
from convert.arguments import add_input, load_input, output_beside, status
from convert.arrays import DTYPES
from convert.checkpoint import Checkpoint, load, save
from convert.formats import FORMATS
from spec.console import Parser, closing_pipe, escape_unprintable, fail, table

SUFFIX = {**dict.fromkeys(("ours", "flax", "timm"), ".safetensors"), **dict.fromkeys(("hf", "dinov3-hf"), "")}
"""Format -> the suffix of its files without -o; .pth for the others."""

IMAGES = (".jpg", ".jpeg", ".png", ".gif", ".tif", ".tiff", ".webp", ".bmp", ".pdf")


@closing_pipe()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, 1 where `verify` finds a difference, or 2 after one line about a mistake."""
    escape_unprintable()
    words = sys.argv[1:] if argv is None else list(argv)
    if len(words) > 1 and all(Path(word).suffix.lower() in IMAGES for word in (words[0], words[-1])):
        return fail("convert", f"converts checkpoints, not images; ImageMagick's own command is {_imagemagick()}")
    args = _parser().parse_args(words)
    return status("convert", args.run, args)


def _parser() -> Parser:
    parser = Parser(
        "convert", description="Convert checkpoints of ConvNeXt V1, V2 and FCMAE between the formats in use."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, default, text in (
        ("torch2jax", "flax", "convert to a Flax tree, or to the format of --to"),
        ("jax2torch", "official-dense", "convert to the published PyTorch names, or to the format of --to"),
        ("translate", None, "convert to the format of --to"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=_translate)
        _add_translation(command, default)
    inspect = commands.add_parser("inspect", help="show a file's format, model and parts")
    inspect.set_defaults(run=_inspect)
    verify = commands.add_parser("verify", help="check that two files compute the same function")
    verify.set_defaults(run=_verify)
    for command in (inspect, verify):
        add_input(command)
    verify.add_argument("other", metavar="B", type=Path, help="the file or folder to compare with")
    return parser


def _imagemagick() -> str:
    """ImageMagick's command: magick, or a convert that is not this one."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    others = (shutil.which("convert", path=folder) for folder in folders if Path(folder) != Path(sys.executable).parent)
    return shutil.which("magick") or next(filter(None, others), "magick (of its version 7)")


def _add_translation(command: argparse.ArgumentParser, default: str | None) -> None:
    add_input(command)
    command.add_argument("-o", "--output", type=Path, help="its suffix chooses the kind of file, none makes a folder")
    command.add_argument("--to", choices=sorted(FORMATS), default=default, required=not default, help="format to write")
    command.add_argument("--dtype", choices=list(DTYPES), help="dtype of the parameters (default: unchanged)")
    command.add_argument("--ema", action="store_true", help="use the EMA instead of the parameters")
    command.add_argument("--encoder-only", action="store_true", help="leave decoder, norm and head out")
    command.add_argument("--weights-only", action="store_true", help="leave optimizer and EMA out")
    command.add_argument("--in-chans", type=int, metavar="N", help="give the stem another number of image channels")
    command.add_argument("--num-classes", type=int, metavar="N", help="initialise a new head for N classes")
    command.add_argument("--force", action="store_true", help="replace an existing output")


def _translate(args: argparse.Namespace) -> int:
    checkpoint = _changed(load_input(args, weights_only=args.weights_only), args)
    output = args.output or _output(args.input, checkpoint, args.to)
    left = save(checkpoint, output, format=args.to, force=args.force)
    print(f"{args.input}: {report.summary(checkpoint)}")
    for note in (*checkpoint.notes, *left):
        print(f"note: {note}")
    print(f"{output}: written, {args.to}")
    return 0


def _changed(checkpoint: Checkpoint, args: argparse.Namespace) -> Checkpoint:
    """The checkpoint after the changes that the flags ask for, in this order."""
    if args.ema:
        checkpoint = surgery.use_ema(checkpoint)
    if args.encoder_only:
        checkpoint = surgery.encoder_only(checkpoint)
    if args.in_chans is not None:
        checkpoint = surgery.with_channels(checkpoint, args.in_chans)
    if args.num_classes is not None:
        checkpoint = surgery.with_classes(checkpoint, args.num_classes)
    return surgery.cast(checkpoint, args.dtype) if args.dtype else checkpoint


def _output(source: Path, checkpoint: Checkpoint, format: str) -> Path:
    """A name beside the input: NAME.FORMAT with the format's suffix; a folder if there is training state to keep."""
    trained = format == "ours" and (checkpoint.optimizer or checkpoint.ema)
    return output_beside(source, f".{format}{'' if trained else SUFFIX.get(format, '.pth')}")


def _inspect(args: argparse.Namespace) -> int:
    print(report.report(args.input, load_input(args)))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from convert.verify import BOUND, verify

    verdict = verify(load_input(args, weights_only=True), load(args.other, weights_only=True))
    print(table([("layer", "largest gap"), *((name, f"{gap:.1e}") for name, gap in verdict.gaps.items())]))
    found = "the same function" if verdict.same else f"not the same function, first difference at {verdict.first}"
    first, last = verdict.backends
    print(f"\nA in {first}, B in {last}, float64, random images; {BOUND:.0e} allowed: {found}")
    return 0 if verdict.same else 1


if __name__ == "__main__":
    sys.exit(main())
