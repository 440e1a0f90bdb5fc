"""What training minimises, and how an update is made: the losses and AdamW's rule.

As in `steps.py`, each docstring is the definition that both backends and the numpy oracle follow.
"""

from dataclasses import dataclass
from typing import Literal

from spec.errors import SpecError
from spec.model import EPS, FCMAE, Classifier, Model

CLIP_EPS = 1e-6
"""What clipping adds to the gradient's norm, as torch.nn.utils.clip_grad_norm_ does."""


@dataclass(frozen=True)
class MaskedError:
    """loss = mean over the removed patches of the batch of mean over a patch of (prediction - target)^2.

    target = (p - mean(p)) / sqrt(var(p) + eps) if `normalised`, else p: the pixels p of a patch in
    the order row, column, channel. var is unbiased (ddof 1). NaN when no patch is removed.
    Where images have weights, each error is times that of its image; the number of patches is not.
    Accumulates in float32 at least.
    """

    normalised: bool
    eps: float = EPS


@dataclass(frozen=True)
class CrossEntropy:
    """loss = mean over images of -sum over classes of target * log(softmax(logits)).

    Targets are soft and need not sum to 1. Accumulates in float32 at least.
    """


Loss = MaskedError | CrossEntropy


def loss(model: Model) -> Loss:
    """The loss that a model is trained by; SpecError for a model that has neither a head nor a decoder.

    >>> import spec
    >>> spec.loss(spec.fcmae("convnextv2_atto"))
    MaskedError(normalised=True, eps=1e-06)
    """
    if isinstance(model, FCMAE):
        return MaskedError(model.norm_target)
    if isinstance(model, Classifier) and model.num_classes:
        return CrossEntropy()
    raise SpecError("model: it has no head, so there is no loss to train it by; use spec.classifier or spec.fcmae")


@dataclass(frozen=True)
class Optimizer:
    """AdamW. Update t = 1, 2, ... of a parameter p at learning rate lr:

    g   = min(clip_grad / (norm + CLIP_EPS), 1) * mean gradient of the micro-batches
    mu  = b1 * mu + (1 - b1) * g
    nu  = b2 * nu + (1 - b2) * g^2
    p   = p * (1 - lr * s * d) - lr * s * (mu / (1 - b1^t)) / (sqrt(nu / (1 - b2^t)) + eps)
    ema = ema_decay * ema + (1 - ema_decay) * p

    norm is that of the whole gradient, over all parameters and before clipping. (b1, b2) = betas.
    d = weight_decay where `Param.decays`, else 0. s = layer_decay ** (num_layers + 1 - layer id),
    with the ids of the rule `layer_decay_type`. None leaves clipping, layer decay or the EMA out.
    State and arithmetic are those of the parameters: float32, or float64 in a float64 run.
    """

    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    clip_grad: float | None = None
    layer_decay: float | None = None
    layer_decay_type: Literal["single", "group"] = "single"
    ema_decay: float | None = None
