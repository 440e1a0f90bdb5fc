"""`python -m train`: a run from the command line."""

import os
import sys
from collections.abc import Sequence

from backends.protocol import BackendError
from spec import SpecError
from train import loop
from train.command import cli, slurm
from train.errors import TrainError
from train.tasks import analyse, evaluate, probe, reconstruct

COMMANDS = {"eval": evaluate.run, "reconstruct": reconstruct.run, "analyse": analyse.run, "probe": probe.run}
"""What does a task that trains nothing."""

EX_TEMPFAIL = 75
"""Not done, but try again: sysexits.h's number, which schedulers and scripts can tell from an error's."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or look into a checkpoint; returns the exit status, which docs/reliability.md explains."""
    try:
        words = sys.argv[1:] if argv is None else argv
        config = cli.parse(words)
        if config.slurm:
            print(slurm.submit(config, words))
        elif config.task in COMMANDS:
            COMMANDS[config.task](config)
        elif stopped := loop.run(config):
            queued = slurm.requeue(os.environ) if stopped.saved else None
            print(f"train: {stopped}{f'; {queued}' if queued else ''}", file=sys.stderr)
            return EX_TEMPFAIL
    except (TrainError, SpecError, BackendError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train: interrupted; the same command goes on from the newest checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
