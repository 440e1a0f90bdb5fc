"""`python -m train.report RUN_DIR ...`: rewrite the reports of runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from train.errors import TrainError
from train.report import write


def main(argv: Sequence[str] | None = None) -> int:
    """Write them; return the exit status, 2 after an error."""
    parser = argparse.ArgumentParser(prog="python -m train.report", description=__doc__, allow_abbrev=False)
    parser.add_argument("run_dirs", nargs="+", metavar="RUN_DIR", type=Path, help="the output_dir of a run")
    try:
        for run_dir in parser.parse_args(argv).run_dirs:
            print(write(run_dir))
    except TrainError as error:
        print(f"train.report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
