"""`python -m train`: a run from the command line."""

import sys
from collections.abc import Sequence

from backends.protocol import BackendError
from spec import SpecError
from train import cli, evaluate, loop
from train.errors import TrainError


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or evaluate; returns the exit status, 2 after one line about a mistake."""
    try:
        config = cli.parse(sys.argv[1:] if argv is None else argv)
        (evaluate if config.task == "eval" else loop).run(config)
    except (TrainError, SpecError, BackendError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train: interrupted; the same command goes on from the newest checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
