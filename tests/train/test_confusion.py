"""Confusion matrices and macro F1: as scikit-learn counts them, over all batches and processes, and readable."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from backends.cluster import SingleProcess
from tests.train.test_report import Page, made_up
from train import report
from train.report import confusion, plots
from train.tasks import accuracy
from train.tasks.accuracy import Score


def scored(labels: Sequence[int], predicted: Sequence[int], classes: int, batch: int) -> Score:
    """A score after batches of logits that choose the predicted classes; each is followed by a row of padding."""
    score, logits = Score(), np.eye(classes)[predicted]
    for start in range(0, len(labels), batch):
        padded = np.concatenate([logits[start : start + batch], np.eye(classes)[:1]])
        score.add(padded, np.array([*labels[start : start + batch], -1]))
    return score


@pytest.mark.parametrize(("classes", "images"), [(2, 9), (7, 40), (300, 500)])
def test_counts_are_those_of_scikit_learn(classes: int, images: int) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, images)
    predicted = np.where(rng.random(images) < 0.5, labels, rng.integers(0, classes, images))
    score = scored(labels.tolist(), predicted.tolist(), classes, 4)
    truth = confusion_matrix(labels, predicted, labels=range(classes))
    np.testing.assert_array_equal(score.read_confusion(SingleProcess()), truth)
    f1 = 100 * f1_score(labels, predicted, average="macro")
    assert score.read(SingleProcess())["macro_f1"] == pytest.approx(f1)


def test_too_many_classes_have_no_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "MATRIX", 3)
    score = scored([0, 1, 1], [0, 1, 2], 4, 2)
    assert score.read_confusion(SingleProcess()) is None
    assert score.read(SingleProcess())["macro_f1"] == pytest.approx(100 * (1 + 2 / 3 + 0) / 3)


def test_a_file_reads_back_and_the_largest_confusions_come_first(tmp_path: Path) -> None:
    names, matrix = ["a,b", 'c"', "caf\u00e9"], np.array([[5, 2, 0], [2, 9, 0], [1, 4, 0]])
    confusion.write(tmp_path / "confusion.csv", names, matrix)
    found, read = confusion.read(tmp_path / "confusion.csv")
    assert found == names
    np.testing.assert_array_equal(read, matrix)
    lines = [str(each) for each in confusion.most_frequent(names, matrix, 3)]
    assert lines == [
        'caf\u00e9 taken for c": 4 of 5 images',
        'a,b taken for c": 2 of 7 images',
        'c" taken for a,b: 2 of 11 images',
    ]
    assert confusion.most_frequent(names, np.diag([3, 0, 1]), 3) == []


@pytest.mark.parametrize("classes", [2, 20, 21, 1000])
def test_a_page_is_readable_for_few_classes_and_for_many(tmp_path: Path, classes: int) -> None:
    """$ is no mathematics, and no name breaks the page; a glyph that the font lacks is no warning."""
    rng, names = np.random.default_rng(0), ["$x", "<b>\u732b", *(f"class {n}" for n in range(classes - 2))]
    matrix = rng.integers(0, 3, (classes, classes)) * (rng.random((classes, classes)) < 0.2)
    matrix += 5 * np.eye(classes, dtype=int)
    matrix[1, 0] = 9
    made_up(tmp_path, {"step": 1, "epoch": 1, "acc1": 50, "macro_f1": 44.5}, flags="--task finetune")
    for suffix in ("", "_ema"):
        confusion.write(tmp_path / f"confusion{suffix}.csv", names, matrix)
    page = Page(report.write(tmp_path))
    assert "macro F1 44.50 % last" in page.text
    assert "Confusion matrix of the EMA" in page.text
    assert f"<b>\u732b taken for $x: 9 of {matrix[1].sum()} images" in page.text
    assert page.text.count(" taken for ") <= 2 * 12
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ('aria-label="Confusion matrix"' in source) == (classes <= confusion.DRAWN)
    assert len(source) < 3_000_000


def test_a_matrix_is_drawn_row_by_row() -> None:
    drawn = plots.heat_map("Confusion matrix", ["cat", "lynx"], np.array([[3, 1], [0, 4]]))
    assert ElementTree.fromstring(plots.standalone(drawn)) is not None
    assert drawn.count(plots.KEYS["curve-0"]) == 3  # the empty cell is not painted
    assert "opacity: 0.25" in drawn
    assert "opacity: 0.75" in drawn
