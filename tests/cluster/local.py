"""Submit the run of the command line to submitit's local executor, and wait for its end."""

import os
import sys

from train.config import cli, slurm

if __name__ == "__main__":
    words = sys.argv[1:]
    print(slurm.submit(cli.parse(words), words, cluster="local"))
    os.wait()
