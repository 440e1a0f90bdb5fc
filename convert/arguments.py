"""What the commands that read a checkpoint share: the arguments that name it, and the exit status."""

import argparse
from collections.abc import Callable
from pathlib import Path

from backends.protocol import BackendError
from convert import containers, hub
from convert.checkpoint import Checkpoint, load
from convert.errors import ConvertError
from convert.formats import FORMATS
from spec import SpecError
from spec.console import fail


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


def status(program: str, run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """The exit status of a command that reads `args.input`: its own, or 2 after one line about a mistake."""
    try:
        return run(args)
    except (ConvertError, SpecError, BackendError) as error:
        return fail(program, error)
    except BrokenPipeError:
        raise  # of stdout, which is not a file of the user's
    except (OSError, MemoryError) as error:
        return fail(program, f"{args.input}: {error or 'not enough memory'}")
    except KeyboardInterrupt:
        return fail(program, "interrupted; nothing was written")


def output_beside(source: Path, ending: str) -> Path:
    """A path beside a checkpoint, with its name but the given ending; in the current folder for one on the hub."""
    source = hub.stem(source)
    source = source if source.name not in ("", "..") else source.resolve()
    suffixes = [suffix for kind in containers.KINDS.values() for suffix in kind.suffixes]
    stem = source.name
    for suffix in (*suffixes, *(f".{name}" for name in FORMATS)):
        stem = stem.removesuffix(suffix) or stem
    return source.with_name(stem + ending)
