"""The figures of published-code.md: `python -m experiments.published_code` prints them, in a minute or two.

Unless a row says otherwise: atto at 224 px, images of noise, 19 of 49 patches visible, random
weights of unit scale, float64; a figure is |variant - true| / |true|, L2 over the encoder's
features. Variants are the engines, or the parity suite's mutants of its oracle.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from sklearn.datasets import load_digits

import spec
from backends.torch import ENGINES, build, forward, set_arrays
from backends.torch.space import dense
from backends.torch.space.protocol import Space
from backends.torch.steps import Call
from parity_tests import golden, oracle, tolerances
from parity_tests.mutants import MUTANTS
from parity_tests.strategies import Case
from train.schedule import Schedule

Row = tuple[str, str]

IMAGENET = 1_281_167
BATCH = 4096  # of the published pre-training
MODEL = spec.fcmae("convnextv2_atto")


def main() -> int:
    """Print the table; returns the exit status, 1 after one line where MinkowskiEngine is missing."""
    if "minkowski" not in ENGINES:
        print("published_code: these figures need MinkowskiEngine; build it: make minkowski", file=sys.stderr)
        return 1
    print("| what | figure |\n|---|---|")
    for section in (
        reference,
        published_outputs,
        grn_over_the_batch,
        variants,
        first_loss,
        blanks,
        crops,
        decay,
        rates,
    ):
        for what, figure in section():
            print(f"| {what} | {figure} |", flush=True)
    return 0


def reference() -> Iterator[Row]:
    """Sparse convolution equals masked dense convolution, on the real engine."""
    for dtype, ceiling in (("float64", 1e-12), ("float32", 1e-5)):
        found, true = (_features(_case(3), engine, dtype) for engine in ("minkowski", "masked"))
        yield f"MinkowskiEngine with GRN per image, {dtype}", _below(_distance(found, true), ceiling)


def published_outputs() -> Iterator[Row]:
    """What the released code computed, in float32, and what we compute on its engine."""
    for images, scope in ((1, "image"), (3, "batch")):
        published = golden.fcmae(images)
        module = build(published.model)
        set_arrays(module, published.arrays)
        found = forward(module, published.images, published.mask, engine="minkowski")
        gap = max(tolerances.gap(found[name], value) for name, value in published.outputs.items())
        yield f'outputs stored from the released code, batch of {images}, `grn_scope="{scope}"`', _below(gap, 1e-5)


def grn_over_the_batch() -> Iterator[Row]:
    batch = spec.fcmae("convnextv2_atto", grn_scope="batch")
    for images in (1, 2, 8, 64):
        case = _case(images)
        found, true = (_features(c, dtype="float32") for c in (replace(case, model=batch), case))
        yield f"GRN over a batch of {images}, float32", _short(_distance(found, true))


def variants() -> Iterator[Row]:
    """One step wrong at a time."""
    case = _case(1)
    true = oracle.forward(case.model, case.arrays, case.images, case.mask)["encoded"]
    for name in (
        "GRN divided by the sum",
        "GRN eps inside the root",
        "tanh GELU",
        "GRN over removed sites too",
        "mask at the stem only",
    ):
        found = oracle.forward(case.model, case.arrays, case.images, case.mask, rules=MUTANTS[name].rules)
        yield name, _short(_distance(found["encoded"], true))


def first_loss() -> Iterator[Row]:
    """The loss before any update; predicting nothing would cost 1."""
    case = _case(8)
    for whose, model in (("our", MODEL), ("the released", replace(MODEL, init="released"))):
        yield f"first loss, {whose} initialisation", f"{forward(build(model), case.images, case.mask)['loss']:.2f}"


def blanks() -> Iterator[Row]:
    """Digits on black, pixels from 0 to 1, first weights: sites that are 0 after the stem, which `to_sparse` drops."""
    from backends.torch.space.minkowski import ME, MinkowskiSpace

    model = spec.fcmae("convnextv2_atto", in_chans=1)
    digits = np.kron(load_digits().images[:8] / 16, np.ones((28, 28)))[..., None]
    images, mask = torch.from_numpy(digits), torch.from_numpy(_case(8).mask)
    module = build(model, dtype="float64")
    names = module.encoder_names
    with torch.no_grad():
        true = _encoded(*module.encode(images, mask, engine="minkowski"))
        x, space = module.run(names[:2], *dense.enter(images, mask, 32), Call())
        sparse = ME.to_sparse(space.grid(x).permute(0, 3, 1, 2))
        dropping = MinkowskiSpace(x.shape[:3], sparse.coordinate_map_key, sparse.coordinate_manager)
        found = _encoded(*module.run(names[2:], sparse.F, dropping, Call()))
    dropped = 1 - len(sparse) / space.keep.sum()
    yield "visible sites that `to_sparse` drops from digits on black", f"{100 * dropped:.0f} %"
    yield "the effect of dropping them on the features", _short(_distance(found.numpy(), true.numpy()))


def crops() -> Iterator[Row]:
    """The probability that a batch has no visible patch in its last row or last column."""
    rows, columns = MODEL.grid
    visible = spec.visible_patches(MODEL)
    ways = math.comb(rows * columns, visible)
    no_row, no_column = (math.comb(rows * columns - side, visible) / ways for side in (columns, rows))
    neither = math.comb((rows - 1) * (columns - 1), visible) / ways
    for images in (1, 2, 4):
        chance = no_row**images + no_column**images - neither**images
        yield f"batches of {images} that `dense()` crops", f"1 in {1 / chance:,.0f}"


def decay() -> Iterator[Row]:
    """Weight decay on GRN and the mask token, over the published 800 epochs."""
    touched = {name: p for name, p in spec.parameters(MODEL).items() if ".grn." in name or name == "mask_token"}
    assert not any(p.decays for p in touched.values())
    schedule = Schedule(1.5e-4 * BATCH / 256, 0.0, warmup=40, epochs=800, updates_per_epoch=IMAGENET // BATCH)
    left = math.exp(sum(math.log1p(-0.05 * schedule.lr(update)) for update in range(schedule.updates)))
    yield (
        "values that decay because of their rank",
        f"{sum(p.size for p in touched.values()):,} in {len(touched)} arrays",
    )
    yield "what 800 epochs of decay alone leave of a value", _short(left)


def rates() -> Iterator[Row]:
    for whose, base in (("in the paper", 6.25e-3), ("in the released command", 6.25e-4)):
        yield f"base's peak fine-tuning rate at batch 1024, {whose}", _short(base * 1024 / 256)


def _case(images: int) -> Case:
    return Case(MODEL, MODEL.grid, spec.visible_patches(MODEL), images)


@torch.no_grad()
def _features(case: Case, engine: str = "visible", dtype: str = "float64") -> np.ndarray:
    module = build(case.model, dtype=dtype)
    set_arrays(module, case.arrays)
    images, mask = torch.from_numpy(case.images), torch.from_numpy(case.mask)
    return _encoded(*module.encode(images, mask, engine=engine)).numpy()


def _encoded(x: torch.Tensor, space: Space) -> torch.Tensor:
    return space.grid(x)


def _distance(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def _below(figure: float, ceiling: float) -> str:
    """Rounding differs from machine to machine: only its ceiling is worth printing."""
    return f"below {ceiling:.0e}".replace("e-0", "e-") if figure < ceiling else _short(figure)


def _short(figure: float) -> str:
    return f"{figure:.1e}".replace("e-0", "e-") if figure else "0"


if __name__ == "__main__":
    sys.exit(main())
