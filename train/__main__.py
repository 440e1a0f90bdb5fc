"""`python -m train`: start a run from the command line."""

import os
import sys
from collections.abc import Sequence

from backends import launch
from backends.protocol import BackendError
from convert import ConvertError
from spec import SpecError
from spec.console import escape_unprintable, fail
from train import run
from train.config import Config, cli, slurm
from train.errors import TrainError
from train.tasks import analyse, evaluate, probe, reconstruct

COMMANDS = {"eval": evaluate.run, "reconstruct": reconstruct.run, "analyse": analyse.run, "probe": probe.run}
"""Task that trains nothing -> its function."""

EX_TEMPFAIL = 75
"""Exit status of a run that was stopped and can be continued (the number is that of sysexits.h)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the task that the command line names; return the exit status (see docs/reliability.md)."""
    escape_unprintable()
    try:
        words = sys.argv[1:] if argv is None else argv
        config = cli.parse(words)
        _print_notes(config)
        if config.cluster.slurm:
            print(slurm.submit(config, words))
        elif config.run.task in COMMANDS:
            COMMANDS[config.run.task](config)
        elif stopped := run.train(config):
            requeued = slurm.requeue(os.environ) if stopped.saved else None
            print(f"train: {stopped}{f'; {requeued}' if requeued else ''}", file=sys.stderr)
            return EX_TEMPFAIL
    except (TrainError, SpecError, BackendError, ConvertError) as error:
        return fail("train", error)
    except KeyboardInterrupt:
        print("train: interrupted; the same command continues from the newest checkpoint", file=sys.stderr)
        return 130
    return 0


def _print_notes(config: Config) -> None:
    """Print the notes on the configuration, in process 0."""
    place = launch.place(os.environ) if config.notes else None
    if place is None or place.rank == 0:
        for note in config.notes:
            print(note)


if __name__ == "__main__":
    sys.exit(main())
