"""From words to a checked configuration, or to a job of SLURM: flags, recipes, and what the published flags become.

`groups.py` first: it is the list of the flags. Every other room reads a `Config`; none of them is known here.
"""

from train.config.config import Config

__all__ = ["Config"]
