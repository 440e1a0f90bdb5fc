"""The command line: one flag per field of `Config`, in the published spelling.

Plain argparse: a mistake must end in one line, and a switch takes True, true or 1 as in the
released scripts.
"""

import argparse
import os
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

from convert.preparation import IMAGENET, INCEPTION
from spec.console import Parser, nearest
from train.config import published
from train.config.config import FLAGS, GROUPS, Config, Flag
from train.config.recipes import TASKS, Layer
from train.config.resolve import COMMAND_LINE, Resolved, resolve
from train.errors import TrainError

SWITCHES = {"true": True, "1": True, "false": False, "0": False}
METAVARS = {int: "N", float: "X", str: "NAME", bool: "True|False"}
EXPECTED = {int: "a whole number", float: "a number", bool: "True or False"}

BARE: dict[str, Any] = {"nargs": "?", "const": True}  # --norm_pix_loss alone is True, as in the released scripts

ALIASES: dict[str, dict[bool, dict[str, Any]]] = {
    "use_amp": {True: {"precision": "bfloat16"}, False: {"precision": "float32"}},
    "eval": {True: {"task": "eval"}, False: {}},
    "imagenet_default_mean_and_std": {True: IMAGENET, False: INCEPTION},
    "use_volta32": {True: {"constraint": "volta32gb"}, False: {}},
}
"""Published switch -> value -> the flags that it sets."""

SPELLINGS = {"output_dir": ("--job_dir",)}
"""Flag -> its other published names."""

PROJECT = "convnext"  # the published default of --project, used by --enable_wandb True

DESCRIPTION = "Pre-train (FCMAE), fine-tune, evaluate and inspect ConvNeXt V2."
EPILOG = """Flags of --task {task}; --task NAME --help lists those of another. A task refuses flags it does not use.
Defaults are the published ones; for the embedded digits they are those of train/config/recipes.py.
--show_recipe prints a run's values and their sources. The same command with the same --output_dir resumes the run."""


class _Parser(Parser):
    """A Parser that raises TrainError instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise TrainError(message.removeprefix("argument "))


def parse(argv: Sequence[str]) -> Config:
    """Parse a command line; TrainError for a mistake. With --show_recipe, print the values and exit."""
    shows = "--show_recipe" in argv
    resolved = read([word for word in argv if word != "--show_recipe"])
    if shows:
        print(resolved)
        raise SystemExit(0)
    return resolved.config


def read(argv: Sequence[str]) -> Resolved:
    """Parse a command line; the result also has the source of every value."""
    return resolve(_given(argv, COMMAND_LINE))


def read_run(file: Path) -> Config:
    """The configuration in a run's config.toml, also of a version that allowed flags without effect."""
    return resolve(_given(_words(str(file)), str(file)), strict=False).config


def _given(argv: Sequence[str], source: str) -> list[Layer]:
    """The values in the file of --config, then those of the command line."""
    namespace, unknown = _parser(_task(argv), any(word.startswith("--slurm") for word in argv)).parse_known_args(argv)
    _check_unknown(unknown)
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in vars(namespace).items()
    }
    path = values.pop("config", None)
    project, tracked = values.pop("project", PROJECT), values.pop("enable_wandb", False)
    if tracked:
        values.setdefault("wandb", project)
    for alias in ALIASES.keys() & values.keys():
        switch = values.pop(alias)
        for name, value in ALIASES[alias][switch].items():
            if values.setdefault(name, value) != value:
                raise TrainError(f"--{alias} {switch}: contradicts --{name} {values[name]}; give one of them")
    return [*(_given(_words(path), path) if path else []), Layer(source, values)]


def _task(argv: Sequence[str]) -> str:
    """The task whose flags --help lists."""
    words = " ".join(argv)
    if re.search(r"--eval([ =](True|true|1)|$| --)", words):
        return "eval"
    asked = re.search(rf"--task[ =]({'|'.join(TASKS)})", words) or re.search(r"--recipe[ =](pretrain|finetune)_", words)
    return asked[1] if asked else "pretrain"


def _words(path: str) -> list[str]:
    """A TOML file as words of a command line, so that both are checked by the same rules."""
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainError(f"--config {path}: {error}") from None
    words: list[str] = []
    for name, value in table.items():
        words += [f"--{name}", *map(str, value)] if isinstance(value, list) else [f"--{name}={value}"]
    return words


def _check_unknown(words: Sequence[str]) -> None:
    """Print a note for each published flag without effect; TrainError for one with an effect, or an unknown flag."""
    while words:
        name, values, rest = published.split(words)
        if name not in published.PUBLISHED:
            raise TrainError(_unknown(words[0]))
        print(f"note: {published.explain(name, values)}", file=sys.stderr)
        words = rest


def _unknown(word: str) -> str:
    name = word.split("=")[0]
    if not name.startswith("-"):
        return f"{word}: a value without a flag; python -m train --help lists the flags"
    known = [*FLAGS, *ALIASES, "enable_wandb", "job_dir", "project", "show_recipe"]
    hint = nearest(name, [f"--{flag}" for flag in known])
    return f"{name}: no such flag; {hint or 'python -m train --help lists them'}"


def _parser(task: str, submits: bool = False) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m train",
        usage="python -m train --backend torch|jax [--data_path DIR] [flags]",
        description=DESCRIPTION,
        epilog=EPILOG.format(task=task),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=40, width=120),
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", metavar="FILE", help="flags from a TOML file, such as a run's config.toml")
    parser.add_argument("--show_recipe", action="store_true", help="print every value and its source, and exit")
    for name, kind in GROUPS.items():
        flags = [flag for flag in FLAGS.values() if flag.group == name]
        shown = {flag.name for flag in flags if task in flag.tasks and (submits or name != "slurm")}
        group = parser.add_argument_group(kind.title if shown else None)
        for flag in flags:
            keywords = argument(flag, TASKS[task].values.get(flag.name, flag.default))
            hidden = {} if flag.name in shown else {"help": argparse.SUPPRESS}
            group.add_argument(f"--{flag.name}", *SPELLINGS.get(flag.name, ()), **keywords | hidden)
    parser.add_argument("--project", help=argparse.SUPPRESS)
    for alias in (*ALIASES, "enable_wandb"):
        switch: dict[str, Any] = {"type": lambda word: _convert(word, bool, (), False), "help": argparse.SUPPRESS}
        parser.add_argument(f"--{alias}", **switch | BARE)
    return parser


def argument(flag: Flag, default: Any) -> dict[str, Any]:
    """The keywords of add_argument for a flag whose type may be optional, a tuple or a Literal."""
    hint, optional = flag.hint, NoneType in get_args(flag.hint)
    if optional:
        hint = next(kind for kind in get_args(hint) if kind is not NoneType)
    many = get_origin(hint) is tuple
    if many:
        hint = get_args(hint)[0]
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    kind = str if choices else hint
    argument = {
        "type": lambda word: _convert(word, kind, choices, optional),
        "metavar": "|".join(choices) or METAVARS[kind],
        "help": flag.help + _format_default(default),
    }
    return argument | ({"nargs": "+"} if many else BARE if kind is bool else {})


def _convert(word: str, kind: type, choices: tuple[str, ...], optional: bool) -> Any:
    """Convert a word of the command line to a value; ArgumentTypeError if it is not one."""
    if optional and word.lower() == "none":
        return None
    if choices and word not in choices:
        raise argparse.ArgumentTypeError(f"{word!r} is unknown; choose {' or '.join(choices)}")
    try:
        return SWITCHES[word.lower()] if kind is bool else os.path.expanduser(word) if kind is str else kind(word)
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"{word!r} is not {EXPECTED[kind]}") from None


def _format_default(default: Any) -> str:
    if default in (None, ""):
        return ""
    return f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"
