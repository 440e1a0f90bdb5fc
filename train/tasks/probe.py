"""`--task probe`: how well a frozen encoder tells the classes apart, by k-NN and by a linear classifier.

Features are computed once an image, as it is judged: resized and cropped in the centre, never
augmented. Nothing is learnt but the linear classifier.

k-NN: Wu et al. 2018 (instance discrimination), as in DINO (Caron et al. 2021): the k training
images of highest cosine similarity s vote for their classes with weight exp(s / temperature).

Linear: multinomial logistic regression by L-BFGS, its penalty chosen on a held-out part of the
training images, then fitted to all of them: the protocol of CLIP (Radford et al. 2021, A.3)
and DINOv2. MAE's probe is another, SGD for 90 epochs over augmented images; figures of the two
should not stand in one table. As there, features are standardised first.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import backends
from backends.protocol import Backend
from backends.rng import Stream, words
from train.command.config import Config
from train.data.classes import describe
from train.data.sources import open_source
from train.data.subset import labelled, rank_in_class
from train.errors import TrainError
from train.record.logs import told
from train.tasks.evaluate import untrained
from train.tasks.features import MEANING, Features, encoder, extract
from train.tasks.finetune import classes_of, open_judging
from train.tasks.judge import Score

HELD_OUT = 5
"""One in so many images of a class helps to choose the penalty."""

ITERATIONS = 1000
"""L-BFGS's most, as in CLIP."""


def run(config: Config, load: Callable[[str], Backend] = backends.load) -> None:
    """Print top-1 and top-5 of each probe and write them to probe.json; TrainError for what cannot be."""
    source = labelled(open_source(config.data_path), config.train_labels, config.seed)
    classes = classes_of(config, source)
    judging = open_judging(config)
    model, arrays = encoder(config, classes)
    print(f"training: {describe(source)}")
    print(f"evaluation: {describe(judging)}")
    print(f"encoder: {config.finetune or 'drawn anew, untrained'}")
    backend = load(config.backend)
    cluster = backend.init_cluster(config.device)
    if cluster.processes > 1:
        raise TrainError(f"--task probe: {cluster.processes} processes were started, it takes one")
    trainer = untrained(config, backend, cluster, model, arrays, {})
    train, lost = extract(config, trainer, cluster, source, source.classes)
    judged, also_lost = extract(config, trainer, cluster, judging, source.classes)
    for line in (*lost, *also_lost):
        print(f"skipped: {line}")
    found = {"knn": nearest(config, train, judged, classes), "linear": linear(config, train, judged, classes)}
    _write(config, found, train, judged)


def nearest(config: Config, train: Features, judged: Features, classes: int) -> list[dict[str, Any]]:
    """The scores of k-NN for each k; of two classes with equal votes the lower comes first."""
    scores = []
    for k, counted in votes(train, judged, config.knn_k, config.knn_temperature, classes):
        score = _score(counted, judged.labels)
        print(f"k-NN, k = {k}: {told(score)}")
        scores.append({"k": k, **score})
    return scores


def votes(
    train: Features, judged: Features, ks: Sequence[int], temperature: float, classes: int
) -> Iterator[tuple[int, np.ndarray]]:
    """k and (N, classes), the votes of the k nearest training images, for each k from the smallest.

    On unit vectors the nearest are the most similar, |a - b|^2 = 2 - 2 s; scikit-learn searches
    them block by block, so that no matrix of all pairs is ever held.
    """
    from sklearn.neighbors import NearestNeighbors  # seconds to import: only when asked for

    most = max(ks)
    if most > len(train.labels):
        raise TrainError(f"--knn_k {most}: there are {len(train.labels):,} training images; give as many at most")
    search = NearestNeighbors(n_neighbors=most, algorithm="brute").fit(_unit(train.values))
    distances, found = search.kneighbors(_unit(judged.values))
    weights, labels = np.exp((1 - distances**2 / 2) / temperature), train.labels[found]
    counted, rows = np.zeros((len(found), classes)), np.arange(len(found))
    for k in range(1, most + 1):
        counted[rows, labels[:, k - 1]] += weights[:, k - 1]
        if k in ks:
            yield k, counted.copy()


def linear(config: Config, train: Features, judged: Features, classes: int) -> dict[str, Any]:
    """The scores of a linear classifier W z + b of features z standardised as the training images' are.

    It minimises the mean cross-entropy + l2 / 2 |W|^2. l2 is the one of --probe_l2 with the best
    top-1, then the lowest loss, on the held-out images; the middle one where no class has two.
    """
    train, judged = _standardised(train, judged)
    l2 = _penalty(config, train, classes)
    logits, converged = fitted(train, judged, l2, classes)
    score = _score(logits, judged.labels)
    print(f"linear, l2 = {l2:g}: {told(score)}{'' if converged else f', not converged in {ITERATIONS} iterations'}")
    return {"l2": l2, **score, "converged": converged}


def _penalty(config: Config, train: Features, classes: int) -> float:
    """The best of --probe_l2."""
    keys = words(config.seed, Stream.LABELS, 1, len(train.labels))
    counts = np.bincount(train.labels)[train.labels]
    held = rank_in_class(train.labels, keys) < np.where(counts > 1, np.maximum(counts // HELD_OUT, 1), 0)
    penalties = sorted(config.probe_l2, reverse=True)
    if not held.any() or len(penalties) == 1:
        return penalties[len(penalties) // 2]
    rest, kept = (Features(*(column[rows] for column in train)) for rows in (~held, held))

    def merit(l2: float) -> tuple[float, float]:
        score = Score()
        score.add(fitted(rest, kept, l2, classes)[0], kept.labels)
        return score.first, -score.loss

    return max(penalties, key=merit)


def fitted(train: Features, judged: Features, l2: float, classes: int) -> tuple[np.ndarray, bool]:
    """The logits (N, classes) of a linear classifier, -inf for a class it never saw, and whether it converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (l2 * len(train.labels)), max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told in the line of the result
        model.fit(train.values, train.labels)
    known = model.decision_function(judged.values)
    logits = np.full((len(judged.labels), classes), -np.inf)
    logits[:, model.classes_] = known if known.ndim == 2 else np.stack([-known / 2, known / 2], 1)  # two classes
    return logits, int(model.n_iter_.max()) < ITERATIONS


def _standardised(train: Features, judged: Features) -> tuple[Features, Features]:
    """Both, shifted and scaled so that the training values of each channel have mean 0 and variance 1."""
    mean, std = train.values.mean(0), train.values.std(0)
    first, second = ((part.values - mean) / np.where(std > 0, std, 1) for part in (train, judged))
    return train._replace(values=first), judged._replace(values=second)


def _unit(values: np.ndarray) -> np.ndarray:
    """Each row divided by its length."""
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(values.dtype).tiny)


def _score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """acc1 and acc5 in per cent; votes have no loss."""
    score = Score()
    score.add(logits, labels)
    return {"acc1": 100 * score.first / score.images, "acc5": 100 * score.among / score.images}


def _write(config: Config, results: dict[str, Any], train: Features, judged: Features) -> None:
    """probe.json: the results, what they were computed from, and every flag."""
    about = {
        "encoder": config.finetune or None,
        "features": MEANING,
        "channels": train.values.shape[1],
        "train_images": len(train.labels),
        "val_images": len(judged.labels),
    }
    file = config.run_dir / "probe.json"
    try:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**about, **results, "config": config.as_dict()}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise TrainError(f"--output_dir {config.run_dir}: cannot be written: {error.strerror}") from None
    print(f"written: {file}")
