"""Checkpoints as programs for other runtimes: ONNX, StableHLO, torch.export. The command is `twinnext export`.

Reading order: signature.py (inputs and outputs), verify.py; one module per target, imported when first needed.
"""

from export.signature import Signature

__all__ = ["Signature"]
