"""Multiply-accumulates of every step of a model, dense or at the visible patches only."""

from collections.abc import Iterator

from spec import checks
from spec.geometry import count_visible
from spec.model import FCMAE, Model
from spec.steps import Dense, DepthwiseConv, FillRemoved, GlobalPool, Named, PatchConv, Residual, Step


def visible_patches(model: FCMAE) -> int:
    """K, the number of patches each image keeps.

    >>> import spec
    >>> visible_patches(spec.fcmae("convnextv2_atto", image_size=224, mask_ratio=0.6))
    19
    """
    return count_visible(model.grid, model.mask_ratio, model.mask_rounding)


def macs(model: Model, visible: int | None = None, *, image_size: int | tuple[int, int] = 224) -> int:
    """Multiply-accumulates of one image's forward pass: convolutions and linear layers, as papers count them.

    visible: patches the encoder computes on; None is the dense model. image_size, a side or
    (height, width), is for classifiers; an FCMAE knows its own.

    >>> import spec
    >>> macs(spec.classifier("convnextv2_atto"))
    547332480
    """
    return sum(cost for _, cost in step_macs(model, visible, image_size=image_size))


def step_macs(
    model: Model, visible: int | None = None, *, image_size: int | tuple[int, int] = 224
) -> Iterator[tuple[str, int]]:
    """(name, multiply-accumulates) of each top-level step; a block is one step."""
    for name, step, sites in step_sites(model, visible, image_size=image_size):
        yield name, sites * _per_site(((name, step),))


def step_sites(
    model: Model, visible: int | None = None, *, image_size: int | tuple[int, int] = 224
) -> Iterator[tuple[str, Step, int]]:
    """(name, step, sites of its output that are computed) of each top-level step, for one image."""
    patch = model.encoder.patch_size
    height, width = model.image_size if isinstance(model, FCMAE) else checks.image_size(image_size, patch)
    patches = (height // patch) * (width // patch)
    computed = patches if visible is None else checks.visible(visible, patches)
    sites = patch * patch  # of one patch
    for name, step in model.steps:
        match step:
            case PatchConv():
                sites //= step.size**2
            case FillRemoved():
                computed = patches
            case GlobalPool():
                computed = 1  # of patches that are single sites by now
        yield name, step, computed * sites


def _per_site(steps: Named) -> int:
    total = 0
    for _, step in steps:
        match step:
            case PatchConv():
                total += step.in_chans * step.out_chans * step.size**2
            case DepthwiseConv():
                total += step.channels * step.size**2
            case Dense():
                total += step.in_chans * step.out_chans
            case Residual():
                total += _per_site(step.body)
    return total
