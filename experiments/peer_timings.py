"""Time the step of other codes beside ours: `python -m experiments.peer_timings CHECKOUT ...`, in minutes.

A step is forward, loss and backward of the whole masked autoencoder: atto, 60 % of the patches removed, float32 on the
CPU, eager. Each code has a process of its own; within a round each takes one step. `experiments/peer_steps.py` says
which codes are known. All need timm, VisCy's monai too, facebookresearch's and MMEarth's MinkowskiEngine
(`make minkowski`).
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import spec
from benchmarks import tables
from benchmarks.engines import Row, Worker
from benchmarks.errors import BenchmarkError
from experiments.peer_steps import FAILED, PEERS
from spec import console

PROGRAM = "experiments.peer_timings"
OURS = "this repository"


class PeerWorker(Worker):
    """A process that takes the steps of another code."""

    module = "experiments.peer_steps"

    def _receive(self) -> str:
        answer = super()._receive()
        if answer.startswith(FAILED):
            raise BenchmarkError(f"{self.job['checkout']}: {self.job['engine']} {answer.strip()}")
        return answer


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit status: 1 if a code does not run, 2 after a mistake in the arguments."""
    parser = console.Parser(f"python -m {PROGRAM}", description=__doc__)
    parser.add_argument("checkouts", nargs="+", type=Path, metavar="CHECKOUT", help="folder of another code")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args(argv)
    try:
        ours = job(args.batch_size, args.image_size, args.rounds)
        rows, failures = measure([ours, *(ours | peer_of(checkout) for checkout in args.checkouts)], args.rounds)
    except (BenchmarkError, spec.SpecError) as error:
        return console.fail(PROGRAM, error)
    for failure in failures:
        print(f"{PROGRAM}: {failure}", file=sys.stderr)
    print("\n".join(table(rows)))
    return 1 if failures else 0


def job(batch_size: int, image_size: int, rounds: int) -> dict[str, Any]:
    """Our job, for `benchmarks.worker`; BenchmarkError or SpecError if the sizes make none."""
    if min(batch_size, rounds) < 1:
        raise BenchmarkError("--batch_size and --rounds must be 1 or more")
    model = spec.fcmae("convnextv2_atto", image_size=image_size)
    sizes = {"model": "convnextv2_atto", "batch_size": batch_size, "image_size": image_size}
    how = {"what": "gradient", "part": "fcmae", "dtype": "float32", "device": "cpu", "compiled": False}
    return {"backend": "torch", "engine": "visible", "mask_ratio": model.mask_ratio, **sizes, **how}


def peer_of(checkout: Path) -> dict[str, str]:
    """What makes our job that of a peer; BenchmarkError if the folder is none of a peer."""
    name = next((name for name, peer in PEERS.items() if (checkout / peer.marker).exists()), None)
    if name is None:
        known = ", ".join(f"{peer.marker} ({name})" for name, peer in PEERS.items())
        raise BenchmarkError(f"{checkout}: not a checkout of a known code; it would have one of these files: {known}")
    return {"backend": "peer", "engine": name, "checkout": str(checkout.resolve())}


def measure(jobs: Sequence[dict[str, Any]], rounds: int) -> tuple[list[Row], list[str]]:
    """The rows of the codes that run, and why the others do not."""
    running, failures = list[Worker](), list[str]()
    with ExitStack() as stack:
        for each in jobs:
            kind = PeerWorker if each["backend"] == "peer" else Worker
            worker = kind(each, PYTHONWARNINGS="ignore")
            stack.callback(worker.stop)
            try:
                worker.wait()
                running.append(worker)
            except BenchmarkError as error:
                failures.append(str(error))
        for _ in range(rounds):
            for worker in running:
                worker.step()
    return [worker.row for worker in running], failures


def table(rows: Sequence[Row]) -> list[str]:
    """The machine, the job, and a table in Markdown with a row per code. rows: the first is ours."""
    ours = rows[0]
    lines = [tables.describe_machine(), tables.title(ours.job), ""]
    lines += ["| code | seconds | quartiles | times ours | peak MB |", "|---|---|---|---|---|"]
    for row in rows:
        name = OURS if row is ours else row.job["engine"]
        quartiles = "{:.3f} to {:.3f}".format(*row.quartiles)
        ratio, peak = row.median / ours.median, row.peak_bytes / 1e6
        lines.append(f"| {name} | {row.median:.3f} | {quartiles} | {ratio:.2f} | {peak:.0f} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
