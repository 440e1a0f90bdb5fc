"""Flags, recipes and the command line, resolved to a `Config`; and submission to SLURM.

Start with `groups.py`, the list of the flags.
"""

from train.config.config import Config

__all__ = ["Config"]
