"""Several runs, one after the other, in the same processes, because importing torch takes most of the time."""

import os
import sys
from pathlib import Path

from tests.cluster import runs
from train.__main__ import main

SCENARIOS = {
    "pretrain, copies": "--batch_size 1 --update_freq 4",
    "pretrain, shards": "--batch_size 4 --shard True",
    "partial, copies": "--batch_size 2 --update_freq 4 --drop_last False",
    "finetune, copies": f"--batch_size 2 --update_freq 2 {runs.FINETUNE}",
    "finetune, shards": f"--batch_size 2 --update_freq 2 --shard True {runs.FINETUNE}",
    "to one process": f"--batch_size 4 --stop_at_step 7 --shard True {runs.FINETUNE}",
    "from one process": f"--batch_size 4 {runs.FINETUNE}",
    "evaluation": "--batch_size 4 --shard True --task eval --model_ema_eval True --finetune",
}
"""Runs of two processes, with eight images per update (partial: 16 and then 8), and an evaluation of one of them."""

if __name__ == "__main__":
    images, place, *ports = sys.argv[1:]
    for (name, flags), port in zip(SCENARIOS.items(), ports, strict=True):
        os.environ["MASTER_PORT"] = port
        words = runs.command(Path(images), Path(place) / name, flags)
        if name == "evaluation":
            print("evaluation:")
            words.append(str(Path(place) / "finetune, copies"))
        if status := main(words):
            sys.exit(status)
