"""Every checkpoint in use, both ways, bit for bit: `load(path)` and `save(checkpoint, path, format=...)`.

Reading order: rules.py (how a format is data), formats/ (the tables), naming.py, checkpoint.py;
containers/ holds one module for each kind of file.
"""

from convert.checkpoint import Checkpoint, load, save
from convert.content import AdamW
from convert.errors import ConvertError

__all__ = ["AdamW", "Checkpoint", "ConvertError", "load", "save"]
