"""The losses, and the defaults of AdamW, against the published scripts."""

import spec


def test_an_autoencoder_is_trained_by_its_masked_error() -> None:
    for normalised in (True, False):
        model = spec.fcmae("convnextv2_atto", norm_target=normalised)
        assert spec.loss(model) == spec.MaskedError(normalised, 1e-6)


def test_a_classifier_is_trained_by_cross_entropy() -> None:
    assert spec.loss(spec.classifier("convnextv2_atto")) == spec.CrossEntropy()


def test_the_optimizer_of_pre_training_is_the_default() -> None:
    assert spec.Optimizer() == spec.Optimizer(0.05, (0.9, 0.95), 1e-8, None, None, "single", None)
    assert spec.CLIP_EPS == 1e-6
