"""RandAugment against timm's: the same pixels, and the same distribution of operations and magnitudes."""

import random
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from backends.rng import Stream
from tests.train.images import pixels
from tests.train.timm_oracle import kolmogorov, module
from train.data.randaugment import NAMES, OPERATIONS, TOP, RandAugment
from train.data.transforms import Draws
from train.errors import TrainError

POLICY = "rand-m9-mstd0.5-inc1"
MEAN = (0.485, 0.456, 0.406)
FILL = (124, 116, 104)
MAGNITUDES = (0.0, 0.3, 2.5, 5.0, 7.49, 8.6, 9.0, 9.99, 10.0)
TIMMS = {
    **{name: f"{name}Increasing" for name in ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")},
    **{name: f"{name}Rel" for name in ("TranslateX", "TranslateY")},
}
DRAWN = 6000


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    return module("auto_augment")


def test_the_operations_are_timms(timm: ModuleType) -> None:
    assert sorted(TIMMS.get(name, name) for name in NAMES) == sorted(timm._RAND_INCREASING_TRANSFORMS)


@pytest.mark.parametrize("name", NAMES)
def test_every_operation_gives_timms_pixels(timm: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"interpolation": Image.Resampling.BICUBIC, "img_mean": FILL}
    images = [Image.fromarray(pixels(seed, 33, 47)) for seed in (1, 2)]
    images.append(Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)))
    for magnitude in MAGNITUDES:
        if name == "Posterize" and magnitude == TOP:
            continue  # no bits: see below
        op = timm.AugmentOp(TIMMS.get(name, name), prob=1.0, magnitude=magnitude, hparams=options)
        for sign, coin in ((1, 0.1), (-1, 0.9)):
            monkeypatch.setattr(timm, "random", SimpleNamespace(random=lambda coin=coin: coin))
            for image in images:
                ours = OPERATIONS[name](image, magnitude / TOP, sign, FILL)
                np.testing.assert_array_equal(np.asarray(ours), np.asarray(op(image)))


def test_no_bits_are_black() -> None:
    """As Pillow drew it before it refused to: 2 in 100 posterizations of the published policy."""
    image = Image.fromarray(pixels(1))
    assert not np.asarray(OPERATIONS["Posterize"](image, 1.0, 1, FILL)).any()


def test_operations_and_magnitudes_are_distributed_as_timms(timm: ModuleType) -> None:
    random.seed(0)
    np.random.seed(0)
    theirs: list[tuple[str, float]] = []
    policy = timm.rand_augment_transform(POLICY, {"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC})
    for op in policy.ops:
        op.level_fn = lambda magnitude, _: (magnitude,)
        op.aug_fn = lambda image, magnitude, name=op.name, **_: theirs.append((name, magnitude))
    for _ in range(DRAWN // 2):
        policy(None)
    parsed = RandAugment.parse(POLICY, MEAN)
    drawn = [parsed.draw(Draws(0, Stream.AUGMENT, position)) for position in range(DRAWN)]
    ours = [(TIMMS.get(name, name), magnitude) for name, applied, magnitude, _ in drawn if applied]
    assert (parsed.layers, parsed.fill) == (policy.num_layers, FILL)
    assert kolmogorov([x for _, x in ours], [x for _, x in theirs]) < 1.95
    spread = 5 * (DRAWN * 0.25) ** 0.5
    assert abs(len(ours) - DRAWN / 2) < spread
    assert abs(len(theirs) - DRAWN / 2) < spread
    assert abs(sum(sign for *_, sign in drawn)) < 2 * spread
    for name in {name for name, _ in theirs}:
        counts = [sum(name == other for other, _ in sample) for sample in (ours, theirs)]
        assert abs(counts[0] - counts[1]) < 5 * sum(counts) ** 0.5


def test_a_policy_is_a_pure_function_of_its_draws() -> None:
    policy, image = RandAugment.parse(POLICY, MEAN), pixels(5, 32, 32)
    changed = [policy(image, Draws(0, Stream.AUGMENT, position)) for position in range(20)]
    again = [policy(image, Draws(0, Stream.AUGMENT, position)) for position in range(20)]
    np.testing.assert_array_equal(changed, again)
    assert len({each.tobytes() for each in changed}) > 10
    np.testing.assert_array_equal(image, pixels(5, 32, 32))


def test_grey_images_stay_grey() -> None:
    policy = RandAugment.parse("rand-m9-n8-p1-inc1", (0.5,))
    for position in range(30):
        changed = policy(pixels(3, 32, 40)[..., :1], Draws(0, Stream.AUGMENT, position))
        assert (changed.shape, changed.dtype) == ((32, 40, 1), np.uint8)


@pytest.mark.parametrize(
    "text", ["v0", "rand", "rand-m9", "rand-m11-inc1", "rand-m9-inc0", "rand-n1.5-inc1", "rand-q3-inc1", "rand-m-inc1"]
)
def test_what_is_no_such_policy_is_one_line(text: str) -> None:
    with pytest.raises(TrainError, match=f"--aa {text}: not a policy such as rand-m9-mstd0.5-inc1"):
        RandAugment.parse(text, MEAN)


def test_a_policys_defaults_are_timms() -> None:
    assert RandAugment.parse("rand-inc1", MEAN) == RandAugment(10.0, 2, 0.5, 0.0, FILL)
    assert RandAugment.parse("rand-m7-n3-p0.3-mstd1-inc1", MEAN) == RandAugment(7.0, 3, 0.3, 1.0, FILL)
