"""`python -m twinnext` and the command `twinnext`: train, stats, convert, export, spec and benchmarks."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from spec.console import Parser, closing_pipe
from twinnext import __version__

COMMANDS = {
    "train": "pre-train, fine-tune, evaluate and analyse models",
    "stats": "measure the channels of a data set, print the flags for it",
    "convert": "convert, inspect and compare checkpoints",
    "export": "export models to ONNX, StableHLO and torch.export",
    "spec": "list the presets, show their layers and costs",
    "benchmarks": "measure speed and memory",
}

MODULES = {"stats": "train.stats"}
"""Command -> its module, where that is not COMMAND.__main__."""


@closing_pipe()
def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command; returns its exit status."""
    args = _parser().parse_args(argv)
    module = MODULES.get(args.command, f"{args.command}.__main__")
    return int(importlib.import_module(module).main(args.arguments))


def _parser() -> Parser:
    commands = "\n".join(f"  {name:<12}{text}" for name, text in COMMANDS.items())
    parser = Parser(
        "twinnext",
        usage="twinnext COMMAND [arguments]",
        description=f"ConvNeXt V2 and FCMAE in PyTorch and JAX. Commands:\n\n{commands}",
        epilog="twinnext COMMAND --help shows the arguments of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"twinnext {__version__}")
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
