"""`python -m train`: a run from the command line."""

import sys
from collections.abc import Sequence

from backends.protocol import BackendError
from spec import SpecError
from train import analyse, cli, evaluate, loop, reconstruct
from train.errors import TrainError

COMMANDS = {"eval": evaluate.run, "reconstruct": reconstruct.run, "analyse": analyse.run}
"""What does a task that trains nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or look into a checkpoint; returns the exit status, 2 after one line about a mistake."""
    try:
        config = cli.parse(sys.argv[1:] if argv is None else argv)
        COMMANDS.get(config.task, loop.run)(config)
    except (TrainError, SpecError, BackendError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train: interrupted; the same command goes on from the newest checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
