"""Layer-wise learning-rate decay, from the parameter table."""

import spec
from backends.protocol import Optimizer


def learning_rate_scales(model: spec.Model, optimizer: Optimizer) -> dict[str, float]:
    """Name -> decay ** (num_layers + 1 - layer id); 1 everywhere without layer decay."""
    table = spec.parameters(model)
    decay, rule = optimizer.layer_decay, optimizer.layer_decay_type
    if decay is None:
        return dict.fromkeys(table, 1.0)
    last = spec.num_layers(model, rule) + 1
    return {name: decay ** (last - param.layer_ids[rule]) for name, param in table.items()}
