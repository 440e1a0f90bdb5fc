"""From words to a checked configuration, or to a job of SLURM: flags, recipes, and what the published flags become.

`config.py` first. Every other room reads a configuration; none of them is known here.
"""

from train.config.config import Config

__all__ = ["Config"]
