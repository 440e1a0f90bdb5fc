"""Several runs, one after the other, in each of the processes that take part: importing torch is what takes time."""

import os
import sys
from pathlib import Path

from tests.cluster import runs
from train.__main__ import main

SCENARIOS = {
    "pretrain, copies": "--batch_size 2 --update_freq 2",
    "pretrain, shards": "--batch_size 4 --shard True",
    "finetune, copies": f"--batch_size 2 --update_freq 2 {runs.FINETUNE}",
    "finetune, shards": f"--batch_size 2 --update_freq 2 --shard True {runs.FINETUNE}",
    "to one process": f"--batch_size 4 --stop_at_step 7 --shard True {runs.FINETUNE}",
    "from one process": f"--batch_size 4 {runs.FINETUNE}",
}
"""Runs of two processes, with eight images in an update."""

if __name__ == "__main__":
    images, place, *ports = sys.argv[1:]
    for (name, flags), port in zip(SCENARIOS.items(), ports, strict=True):
        os.environ["MASTER_PORT"] = port
        if status := main(runs.command(Path(images), Path(place) / name, flags)):
            sys.exit(status)
