"""The arguments that name a checkpoint, shared by the commands that read one."""

import argparse
from pathlib import Path

from convert import containers, hub
from convert.checkpoint import Checkpoint, load
from convert.formats import FORMATS


def add_input(command: argparse.ArgumentParser) -> None:
    """Add IN, --from, --key and --prefix."""
    command.add_argument(
        "input", metavar="IN", type=Path, help="a file, a folder of transformers, Orbax or a run, or hf:OWNER/NAME"
    )
    command.add_argument("--from", dest="source", choices=sorted(FORMATS), help="its format, instead of recognising it")
    command.add_argument("--key", help="of a .pth: where its parameters are, e.g. model_state_dict")
    command.add_argument(
        "--prefix", default="", help="what their names begin with, e.g. backbone.; the rest is left out"
    )


def load_input(args: argparse.Namespace, weights_only: bool = False) -> Checkpoint:
    """The checkpoint that the arguments name."""
    return load(args.input, format=args.source, weights_only=weights_only, key=args.key, prefix=args.prefix)


def output_beside(source: Path, ending: str) -> Path:
    """A path beside a checkpoint, with its name but the given ending; in the current folder for one on the hub."""
    source = hub.stem(source)
    source = source if source.name not in ("", "..") else source.resolve()
    suffixes = [suffix for kind in containers.KINDS.values() for suffix in kind.suffixes]
    stem = source.name
    for suffix in (*suffixes, *(f".{name}" for name in FORMATS)):
        stem = stem.removesuffix(suffix) or stem
    return source.with_name(stem + ending)
