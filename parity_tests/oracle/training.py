"""One training step in numpy: loss and gradients of a batch, clipping, AdamW with layer decay, the EMA."""

from collections.abc import Sequence

import numpy as np

import spec
from backends.protocol import Batch, Optimizer, State
from parity_tests.oracle.model import RULES, Arrays, Rules, Walk, start


def normalised(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """uint8 pixels as (x / 255 - mean) / std; floats as they are."""
    if images.dtype != np.uint8:
        return images
    return (images / 255 - np.asarray(mean, np.float64)) / np.asarray(std, np.float64)


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over images of -sum targets log softmax(logits), and its slope; targets need not sum to 1."""
    shifted = logits - logits.max(-1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    slope = np.exp(log) * targets.sum(-1, keepdims=True) - targets
    return -(targets * log).sum() / len(logits), slope / len(logits)


def loss_and_gradients(
    model: spec.Model, arrays: Arrays, batch: Batch, mean: Sequence[float], std: Sequence[float], rules: Rules = RULES
) -> tuple[np.ndarray, Arrays]:
    """The loss of one micro-batch, and its gradients by every parameter in the table's order."""
    images = normalised(batch["images"], mean, std)
    walk = Walk(rules, arrays, batch.get("keep_paths"), {})
    field, pull = walk.run(rules.tree(model), start(model, images, batch.get("mask"), rules))
    if isinstance(model, spec.FCMAE):
        loss, slope = rules.masked_error(field.x, rules.target(model, images), batch["mask"])
    else:
        loss, slope = cross_entropy(field.x[:, 0, 0], batch["targets"].astype(np.float64))
        slope = slope[:, None, None]
    found = pull(slope)[1]
    return loss, {name: found[name] for name in spec.parameters(model)}


def train_step(
    model: spec.Model,
    optimizer: Optimizer,
    state: State,
    batches: Sequence[Batch],
    lr: float,
    *,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> tuple[State, dict[str, float]]:
    """The state after one update from the mean gradient of the micro-batches, with loss and unclipped gradient norm."""
    each = [loss_and_gradients(model, state.params, batch, mean, std) for batch in batches]
    gradients = {name: sum(found[name] for _, found in each) / len(each) for name in state.params}
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
    scale = 1.0 if optimizer.clip_grad is None else min(optimizer.clip_grad / (norm + spec.CLIP_EPS), 1.0)
    after = State(params={}, t=state.t + 1)
    for name, param in spec.parameters(model).items():
        after.params[name], after.mu[name], after.nu[name] = adamw(
            optimizer,
            lr * layer_scale(model, optimizer, param),
            optimizer.weight_decay if param.decays else 0.0,
            after.t,
            (state.params[name], state.mu[name], state.nu[name]),
            scale * gradients[name],
        )
    if optimizer.ema_decay is not None:
        kept = optimizer.ema_decay
        after.ema = {name: kept * state.ema[name] + (1 - kept) * value for name, value in after.params.items()}
    return after, {"loss": float(sum(loss for loss, _ in each) / len(each)), "grad_norm": float(norm)}


def adamw(
    optimizer: Optimizer,
    lr: float,
    decay: float,
    t: int,
    values: tuple[np.ndarray, np.ndarray, np.ndarray],
    gradient: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p (1 - lr decay) - lr mu^ / (sqrt(nu^) + eps), with mu^ and nu^ the moments freed of their bias at update t."""
    value, mu, nu = values
    first, second = optimizer.betas
    mu = first * mu + (1 - first) * gradient
    nu = second * nu + (1 - second) * gradient**2
    update = (mu / (1 - first**t)) / (np.sqrt(nu / (1 - second**t)) + optimizer.eps)
    return value * (1 - lr * decay) - lr * update, mu, nu


def layer_scale(model: spec.Model, optimizer: Optimizer, param: spec.Param) -> float:
    """layer_decay ** (num_layers + 1 - id); 1 without layer decay."""
    if optimizer.layer_decay is None:
        return 1.0
    rule = optimizer.layer_decay_type
    return float(optimizer.layer_decay ** (spec.num_layers(model, rule) + 1 - param.layer_ids[rule]))
