"""Made pictures with labels for every pixel: handwritten digits of scikit-learn, placed at random."""

import numpy as np
from sklearn.datasets import load_digits

SIDE, DIGITS, CLASSES = 32, 2, 3
"""Pixels of a scene, digits in it, and classes of a pixel: the digits 0 and 1, and the background."""

TRAINING = 300  # digits to train on; scenes of evaluation are made of the other 60


def scenes(seed: int, count: int = 16, held_out: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, 1) float32 in 0..1, and the class of every pixel (N, H, W) int64."""
    rng, (pixels, names) = np.random.default_rng([seed, held_out]), load_digits(n_class=2, return_X_y=True)
    first, last = (TRAINING, len(names)) if held_out else (0, TRAINING)
    images = np.zeros((count, SIDE, SIDE, 1), np.float32)
    labels = np.full((count, SIDE, SIDE), CLASSES - 1)
    for image, label in zip(images, labels, strict=True):
        for index in rng.integers(first, last, DIGITS):
            digit = pixels[index].reshape(8, 8).repeat(2, 0).repeat(2, 1)[..., None] / 16
            row, column = rng.integers(0, SIDE - len(digit), 2)
            place = np.s_[row : row + len(digit), column : column + len(digit)]
            label[place] = np.where(digit[..., 0] > 0.25, names[index], label[place])
            image[place] = np.maximum(image[place], digit)
    return images, labels


def mean_iou(found: np.ndarray, labels: np.ndarray) -> float:
    """The intersection over union of predicted and true pixels, averaged over the classes."""
    pairs = [(found == one, labels == one) for one in range(CLASSES)]
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs]))
