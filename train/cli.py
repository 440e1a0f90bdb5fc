"""The command line: flags generated from `Config`, in the published spelling.

argparse and not a library: a mistake has to end in one line, and the values of a switch
are True, true and 1 as in the released scripts.
"""

import argparse
import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import Field, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from train.config import DIGITS_PATH, Config, groups
from train.errors import TrainError
from train.recipes import DIGITS

SWITCHES = {"true": True, "1": True, "false": False, "0": False}
METAVARS = {int: "N", float: "X", str: "NAME", bool: "True|False"}
EXPECTED = {int: "a whole number", float: "a number", bool: "True or False"}

DESCRIPTION = "Pre-train ConvNeXt V2 as a fully convolutional masked autoencoder (FCMAE)."
EPILOG = """Defaults are the published ones; on the embedded digits they are those of train/recipes.py.
The same command in the same --output_dir goes on where the run stopped."""


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one line, raised."""

    def error(self, message: str) -> NoReturn:
        raise TrainError(message.removeprefix("argument "))


def parse(argv: Sequence[str]) -> Config:
    """The run that a command line asks for; TrainError for what it cannot mean.

    Later wins: published defaults, the digits' recipe where no folder is given, the file
    of --config, the flags.
    """
    given = _given(argv)
    recipe = DIGITS if given.get("data_path", DIGITS_PATH) == DIGITS_PATH else {}
    if "model" in given:
        recipe = {name: value for name, value in recipe.items() if name not in ("depths", "dims")}
    return Config(**(recipe | given))


def _given(argv: Sequence[str]) -> dict[str, Any]:
    """The values of the flags in argv and, where argv is silent, of the file that --config names."""
    namespace, unknown = _parser().parse_known_args(argv)
    if unknown:
        raise TrainError(_unknown(unknown[0]))
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(namespace).items()}
    path = values.pop("config", None)
    return (_given(_words(path)) if path else {}) | values


def _words(path: str) -> list[str]:
    """A TOML file as words of a command line, so that the same rules find its mistakes."""
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainError(f"--config {path}: {error}") from None
    words: list[str] = []
    for name, value in table.items():
        words += [f"--{name}", *map(str, value)] if isinstance(value, list) else [f"--{name}={value}"]
    return words


def _unknown(word: str) -> str:
    name = word.split("=")[0]
    if not name.startswith("-"):
        return f"{word}: a value without a flag; python -m train --help lists the flags"
    near = difflib.get_close_matches(name, [f"--{f.name}" for f in fields(Config)], n=1)
    return f"{name}: no such flag; " + (f"did you mean {near[0]}?" if near else "python -m train --help lists them")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m train",
        usage="python -m train --backend torch|jax [--data_path DIR] [flags]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=36, width=120),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="flags from a TOML file, such as a run's config.toml")
    hints = get_type_hints(Config)
    for title, members in groups():
        group = parser.add_argument_group(title)
        for member in members:
            group.add_argument(f"--{member.name}", **_argument(member, hints[member.name]))
    return parser


def _argument(member: Field[Any], hint: Any) -> dict[str, Any]:
    """What argparse should know of a field: optional, tuple and Literal types are told apart here."""
    optional = NoneType in get_args(hint)
    if optional:
        hint = next(kind for kind in get_args(hint) if kind is not NoneType)
    many = get_origin(hint) is tuple
    if many:
        hint = get_args(hint)[0]
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    kind = str if choices else hint
    argument = {
        "type": lambda word: _read(word, kind, choices, optional),
        "metavar": "|".join(choices) or METAVARS[kind],
        "help": member.metadata["help"] + _shown(member.default),
    }
    return argument | ({"nargs": "+"} if many else {})


def _read(word: str, kind: type, choices: tuple[str, ...], optional: bool) -> Any:
    """A word of the command line as the value it stands for."""
    if optional and word.lower() == "none":
        return None
    if choices and word not in choices:
        raise argparse.ArgumentTypeError(f"{word!r} is unknown; choose {' or '.join(choices)}")
    try:
        return SWITCHES[word.lower()] if kind is bool else kind(word)
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"{word!r} is not {EXPECTED[kind]}") from None


def _shown(default: Any) -> str:
    if default in (None, ""):
        return ""
    return f" ({' '.join(map(str, default)) if isinstance(default, tuple) else default})"
