"""Top-1 and top-5 accuracy of a classifier over every image once."""

from collections.abc import Sequence

import numpy as np

from backends.protocol import Cluster, Trainer
from convert.preparation import CROP_PCT
from train.config import Config
from train.data.sources import Source
from train.data.supervised import Coverage, EvalBatches
from train.errors import TrainError
from train.tasks.inference import own_batches
from train.tasks.task import Evaluation

TOP = 5
MATRIX = 2_000  # largest number of classes with a confusion matrix: 32 MB


def top_classes(logits: np.ndarray) -> np.ndarray:
    """(N, 5) or fewer: the classes of the highest logits (N, classes), best first. Ties go to the lower class."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :TOP]


class Score:
    """Counts over the rows seen so far; rows with label -1 are padding and do not count."""

    def __init__(self) -> None:
        self.images = self.top1 = self.top5 = self.loss = 0.0
        self.by_class: np.ndarray | None = None  # (3, classes) hits, images, predictions
        self.confusion: np.ndarray | None = None  # (classes, classes) images by true and predicted class

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """logits (N, classes); labels (N,). Ties go to the lower class."""
        real = labels >= 0
        logits, labels = np.asarray(logits, np.float64)[real], labels[real]
        top = top_classes(logits)
        hits = top == labels[:, None]
        shifted = logits - logits.max(1, keepdims=True, initial=-np.inf)
        log = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        self.images += len(labels)
        self.top1 += int(hits[:, 0].sum())
        self.top5 += int(hits.sum())
        self.loss -= float(log[np.arange(len(labels)), labels].sum())
        self._count(labels, top[:, 0], logits.shape[1])

    def _count(self, labels: np.ndarray, predicted: np.ndarray, classes: int) -> None:
        if self.by_class is None:
            self.by_class = np.zeros((3, classes))
            self.confusion = np.zeros((classes, classes)) if classes <= MATRIX else None
        for row, those in enumerate((labels[labels == predicted], labels, predicted)):
            self.by_class[row] += np.bincount(those, minlength=classes)
        if self.confusion is not None:
            np.add.at(self.confusion, (labels, predicted), 1)

    def read(self, cluster: Cluster) -> dict[str, float]:
        """acc1, acc5 and macro_f1 in per cent and the mean cross-entropy val_loss, over the rows of all processes.

        macro_f1 is the mean of 2 hits / (images + predictions) over the classes that have any of the two.
        """
        counts = np.array([self.images, self.top1, self.top5, self.loss])
        images, top1, top5, loss = cluster.all_reduce_sum(counts).tolist()
        count = max(images, 1)
        assert self.by_class is not None, "nothing was added"
        hits, those, predicted = cluster.all_reduce_sum(self.by_class)
        seen = those + predicted > 0
        f1 = float(np.mean(2 * hits[seen] / (those + predicted)[seen])) if seen.any() else 0.0
        return {"acc1": 100 * top1 / count, "acc5": 100 * top5 / count, "val_loss": loss / count, "macro_f1": 100 * f1}

    def read_confusion(self, cluster: Cluster) -> np.ndarray | None:
        """(classes, classes) int, the confusion matrix of all processes; None if the classes are too many."""
        return None if self.confusion is None else cluster.all_reduce_sum(self.confusion).astype(np.int64)


def evaluate(trainer: Trainer, cluster: Cluster, batches: EvalBatches, workers: int, with_ema: bool) -> Evaluation:
    """The scores of the parameters and, with_ema, of their EMA, "..._ema". TrainError if no image can be read."""
    scores = {suffix: Score() for suffix in (("", "_ema") if with_ema else ("",))}
    broken = []
    for _, batch, lines in own_batches(batches, cluster, workers):
        broken += lines
        for suffix, score in scores.items():
            score.add(trainer.evaluate({"images": batch["images"]}, ema=suffix != "")["logits"], batch["labels"])
    read = int(cluster.all_reduce_sum(np.array([scores[""].images]))[0])
    covered = coverage(read, len(batches.source), broken)
    values = {f"{name}{suffix}": value for suffix, s in scores.items() for name, value in s.read(cluster).items()}
    matrices = {suffix: score.read_confusion(cluster) for suffix, score in scores.items()}
    confusions = {suffix: matrix for suffix, matrix in matrices.items() if matrix is not None}
    return Evaluation(values, broken, covered, confusions=confusions)


def coverage(read: int, total: int, broken: Sequence[str]) -> Coverage:
    """How many images could be read; TrainError if none."""
    if not read:
        raise TrainError(f"none of the {total:,} images to evaluate on can be read; {'; '.join(broken[:1])}")
    return Coverage(read, total)


def eval_batches(config: Config, source: Source, labels: tuple[int, ...]) -> EvalBatches:
    """The batches of an evaluation. labels: the model's class index for each class of the source."""
    return EvalBatches(
        source,
        labels,
        config.model.in_chans,
        config.data.image_size,
        crop_pct(config),
        config.optimizer.batch_size,
        config.data.mean,
        config.data.std,
    )


def crop_pct(config: Config) -> float:
    """The fraction of the image that the centre crop takes."""
    return CROP_PCT if config.finetune.crop_pct is None else config.finetune.crop_pct
