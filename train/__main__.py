"""`python -m train`: start a run from the command line."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from backends import launch
from backends.protocol import BackendError
from convert import ConvertError
from spec import SpecError
from spec.console import closing_pipe, escape_unprintable, fail
from train.config import Config, cli, slurm
from train.errors import TrainError, missing_package

COMMANDS = {"eval": "evaluate", **{name: name for name in ("predict", "embed", "probe", "reconstruct", "analyse")}}
"""Task that trains nothing -> its module in train.tasks."""

EX_TEMPFAIL = 75
"""Exit status of a run that was stopped and can be continued (the number is that of sysexits.h)."""


@closing_pipe()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the task that the command line names; return the exit status (see docs/reliability.md)."""
    escape_unprintable()
    try:
        words = sys.argv[1:] if argv is None else argv
        config = cli.parse(words)
        _print_notes(config)
        if config.cluster.slurm:
            print(slurm.submit(config, words))
            return 0
        return _run(config)
    except (TrainError, SpecError, BackendError, ConvertError) as error:
        return fail("train", error)
    except ModuleNotFoundError as error:
        return fail("train", missing_package(error))
    except KeyboardInterrupt:
        print("train: interrupted; the same command continues from the newest checkpoint", file=sys.stderr)
        return 130


def _run(config: Config) -> int:
    """Run a task, importing only what it needs; return the exit status."""
    if config.run.task in COMMANDS:
        return import_module(f"train.tasks.{COMMANDS[config.run.task]}").run(config) or 0
    from train import run

    stopped = run.train(config)
    if stopped is None:
        return 0
    requeued = slurm.requeue(os.environ) if stopped.saved else None
    print(f"train: {stopped}{f'; {requeued}' if requeued else ''}", file=sys.stderr)
    return EX_TEMPFAIL


def _print_notes(config: Config) -> None:
    """Print the notes on the configuration, in process 0."""
    place = launch.place(os.environ) if config.notes else None
    if place is None or place.rank == 0:
        for note in config.notes:
            print(note)


if __name__ == "__main__":
    sys.exit(main())
