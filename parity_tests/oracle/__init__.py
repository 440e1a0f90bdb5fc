"""ConvNeXt V2 and FCMAE in slow numpy, gradients by hand: the third implementation, which decides.

Read `steps.py` (the rule of each step and its vector-Jacobian product), then `model.py`.
Written from the definitions in `spec/` alone; it shares the spec's tree with the backends and no code.
"""

from parity_tests.oracle.model import RULES, Rules, forward, gradients
from parity_tests.oracle.steps import Field, Vjp
from parity_tests.oracle.training import layer_scale, train_step

__all__ = ["RULES", "Field", "Rules", "Vjp", "forward", "gradients", "layer_scale", "train_step"]
