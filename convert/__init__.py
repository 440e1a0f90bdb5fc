"""Checkpoints of every format in use, read and written bit for bit: `load(path)` and `save(checkpoint, path)`.

Reading order: rules.py (a format is data), formats/ (the tables), naming.py, checkpoint.py;
containers/ has one module per kind of file.
"""

from convert.build import build
from convert.checkpoint import Checkpoint, load, save
from convert.content import AdamWState
from convert.errors import ConvertError

__all__ = ["AdamWState", "Checkpoint", "ConvertError", "build", "load", "save"]
