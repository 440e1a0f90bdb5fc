"""`--task probe`: accuracy of k-NN and of a linear classifier on the features of a frozen encoder.

Features are computed once per image, as in evaluation: resized and centre-cropped, never augmented.
Only the linear classifier is trained.

k-NN: Wu et al. 2018 (instance discrimination), as in DINO (Caron et al. 2021): the k training
images of highest cosine similarity s vote for their classes with weight exp(s / temperature).

Linear: multinomial logistic regression by L-BFGS, its penalty chosen on a held-out part of the
training images, then fitted to all of them: the protocol of CLIP (Radford et al. 2021, A.3)
and DINOv2. MAE's probe is another one, SGD for 90 epochs over augmented images; do not compare
numbers of the two. As there, features are standardised first.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import backends
from backends.protocol import Backend
from backends.rng import Stream, words
from train.config import Config
from train.data.classes import describe
from train.data.reading import check_data
from train.data.subset import rank_in_class
from train.errors import TrainError
from train.logs.run_log import format_scores
from train.tasks.accuracy import Score
from train.tasks.evaluate import untrained
from train.tasks.features import MEANING, Features, encoder, extract
from train.tasks.finetune import classes_of, open_eval_source, open_labelled
from train.tasks.inference import one_process
from train.tasks.output import write_json

HELD_OUT = 5  # one in HELD_OUT images of each class is held out to choose the penalty
ITERATIONS = 1000  # largest number of L-BFGS iterations, as in CLIP


def run(config: Config, load: Callable[[str], Backend] = backends.load) -> None:
    """Print top-1 and top-5 of each probe and write them to probe.json; TrainError for a mistake in the flags."""
    source = open_labelled(config)
    classes = classes_of(config, source)
    eval_source = open_eval_source(config)
    values = check_data(config, source.reading, eval_source.reading)
    model, arrays = encoder(config, classes)
    print(f"training: {describe(source)}")
    print(f"evaluation: {describe(eval_source)}\n{values}")
    print(f"encoder: {_checkpoint(config) or 'untrained'}")
    backend, cluster = one_process(config, load)
    trainer = untrained(config, backend, cluster, model, arrays, {})
    train, broken, known = extract(config, trainer, cluster, source, source.classes)
    val, more, covered = extract(config, trainer, cluster, eval_source, source.classes)
    for line in (*broken, *more):
        print(f"skipped: {line}")
    if known.skipped:
        print(f"training{known}")
    about = (config, train, val, classes, str(covered))
    results = {"knn": knn(*about), "linear": linear(*about), "eval_skipped": covered.skipped}
    _write(config, results, train, val)


def knn(config: Config, train: Features, val: Features, classes: int, covered: str = "") -> list[dict[str, Any]]:
    """The scores of k-NN for each k; ties go to the lower class. covered: printed after each score."""
    scores = []
    for k, counted in votes(train, val, config.probe.knn_k, config.probe.knn_temperature, classes):
        score = _score(counted, val.labels)
        print(f"k-NN, k = {k}: {format_scores(score)}{covered}")
        scores.append({"k": k, **score})
    return scores


def votes(
    train: Features, val: Features, ks: Sequence[int], temperature: float, classes: int
) -> Iterator[tuple[int, np.ndarray]]:
    """k and (N, classes), the votes of the k nearest training images, for each k from the smallest.

    The nearest unit vectors are the most similar ones, |a - b|^2 = 2 - 2 s. scikit-learn searches in
    blocks, so the matrix of all pairs is never in memory.
    """
    from sklearn.neighbors import NearestNeighbors  # imported here because it takes seconds

    most = max(ks)
    if most > len(train.labels):
        raise TrainError(f"--knn_k {most}: there are {len(train.labels):,} training images; give at most that many")
    search = NearestNeighbors(n_neighbors=most, algorithm="brute").fit(_unit_vectors(train.values))
    distances, found = search.kneighbors(_unit_vectors(val.values))
    weights, labels = np.exp((1 - distances**2 / 2) / temperature), train.labels[found]
    counted, rows = np.zeros((len(found), classes)), np.arange(len(found))
    for k in range(1, most + 1):
        counted[rows, labels[:, k - 1]] += weights[:, k - 1]
        if k in ks:
            yield k, counted.copy()


def linear(config: Config, train: Features, val: Features, classes: int, covered: str = "") -> dict[str, Any]:
    """The scores of a linear classifier W z + b on features z, standardised by the training images.

    It minimises the mean cross-entropy + l2 / 2 |W|^2. l2 is the value of --probe_l2 with the best
    top-1, then the lowest loss, on the held-out images; the middle one if no class has two images.
    """
    train, val = _standardised(train, val)
    l2 = _penalty(config, train, classes)
    logits, converged = fit_logits(train, val, l2, classes)
    score = _score(logits, val.labels)
    note = "" if converged else f", not converged in {ITERATIONS} iterations"
    print(f"linear, l2 = {l2:g}: {format_scores(score)}{covered}{note}")
    return {"l2": l2, **score, "converged": converged}


def _penalty(config: Config, train: Features, classes: int) -> float:
    """The best of --probe_l2."""
    keys = words(config.run.seed, Stream.LABELS, 1, len(train.labels))
    counts = np.bincount(train.labels)[train.labels]
    held = rank_in_class(train.labels, keys) < np.where(counts > 1, np.maximum(counts // HELD_OUT, 1), 0)
    penalties = sorted(config.probe.probe_l2, reverse=True)
    if not held.any() or len(penalties) == 1:
        return penalties[len(penalties) // 2]
    rest, kept = (Features(*(column[rows] for column in train)) for rows in (~held, held))

    def quality(l2: float) -> tuple[float, float]:
        score = Score()
        score.add(fit_logits(rest, kept, l2, classes)[0], kept.labels)
        return score.top1, -score.loss

    return max(penalties, key=quality)


def fit_logits(train: Features, val: Features, l2: float, classes: int) -> tuple[np.ndarray, bool]:
    """Logits (N, classes) of a linear classifier, -inf for classes without training images; whether it converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (l2 * len(train.labels)), max_iter=ITERATIONS)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # the line of the result says so
        model.fit(train.values, train.labels)
    known = model.decision_function(val.values)
    logits = np.full((len(val.labels), classes), -np.inf)
    logits[:, model.classes_] = known if known.ndim == 2 else np.stack([-known / 2, known / 2], 1)  # two classes
    return logits, int(model.n_iter_.max()) < ITERATIONS


def _standardised(train: Features, val: Features) -> tuple[Features, Features]:
    """Both, shifted and scaled so that each channel has mean 0 and variance 1 over the training images."""
    mean, std = train.values.mean(0), train.values.std(0)
    first, second = ((part.values - mean) / np.where(std > 0, std, 1) for part in (train, val))
    return train._replace(values=first), val._replace(values=second)


def _unit_vectors(values: np.ndarray) -> np.ndarray:
    """Each row divided by its length."""
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(values.dtype).tiny)


def _score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """acc1 and acc5 in per cent (votes have no loss)."""
    score = Score()
    score.add(logits, labels)
    return {"acc1": 100 * score.top1 / score.images, "acc5": 100 * score.top5 / score.images}


def _checkpoint(config: Config) -> str:
    return config.finetune.finetune or config.checkpoints.resume


def _write(config: Config, results: dict[str, Any], train: Features, val: Features) -> None:
    """probe.json: the results, what they were computed from, and every flag."""
    about = {
        "encoder": _checkpoint(config) or None,
        "features": MEANING,
        "channels": train.values.shape[1],
        "train_images": len(train.labels),
        "val_images": len(val.labels),
    }
    write_json(config, "probe.json", {**about, **results, "config": config.as_dict()})
