"""`python -m train.report RUN_DIR ...`: rewrite the reports of runs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from spec.console import Parser, escape_unprintable, fail
from train.errors import TrainError, missing_package
from train.report import write


def main(argv: Sequence[str] | None = None) -> int:
    """Write them; return the exit status, 2 after an error."""
    escape_unprintable()
    parser = Parser("python -m train.report", description=__doc__)
    parser.add_argument("run_dirs", nargs="+", metavar="RUN_DIR", type=Path, help="the output_dir of a run")
    try:
        for run_dir in parser.parse_args(argv).run_dirs:
            print(write(run_dir))
    except ModuleNotFoundError as error:
        return fail("train.report", missing_package(error))
    except TrainError as error:
        return fail("train.report", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
