"""Few labels: the same number per class, decided by the seed alone, and a mistake is one line."""

from pathlib import Path

import numpy as np
import pytest

from tests.train.images import tree
from train.__main__ import main
from train.data.digits import Digits
from train.data.reading import Reading
from train.data.subset import Subset, labelled, rank_in_class
from train.errors import TrainError


class Numbers:
    """A source of given labels whose images are their own numbers."""

    reading = Reading()

    def __init__(self, labels: list[int]) -> None:
        self.labels, self.classes, self.fingerprint = labels, tuple(map(str, range(max(labels) + 1))), "numbers"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, str]:
        return np.full((1, 1, 1), index, np.uint8), self.labels[index], self.name(index)

    def name(self, index: int) -> str:
        return f"number {index}"


def drawn(source: Numbers | Digits, count: int, seed: int = 0) -> Subset:
    found = labelled(source, count, seed)
    assert isinstance(found, Subset)
    return found


@pytest.mark.parametrize("count", [10, 57, 100, 1442])
def test_classes_have_as_many_labels_as_each_other(count: int) -> None:
    source = Digits("train")
    found = drawn(source, count, seed=3)
    counts = np.bincount(found.labels, minlength=10)
    assert counts.sum() == len(found) == len(set(found.chosen.tolist())) == count
    assert counts.max() - counts.min() <= 1 or count == len(source)
    assert [found[n][1] for n in range(count)] == found.labels
    np.testing.assert_array_equal(found[5][0], source[int(found.chosen[5])][0])
    assert found[5][2] == found.name(5) == f"digit {found.chosen[5]}"


def test_a_draw_without_rank_in_class_would_be_seen() -> None:
    labels = np.asarray(Digits("train").labels)
    counts = np.bincount(labels[np.random.default_rng(0).permutation(len(labels))[:100]], minlength=10)
    assert counts.max() - counts.min() > 1


def test_the_seed_decides_and_more_labels_keep_the_fewer() -> None:
    source = Digits("train")
    first, again, other = (drawn(source, 100, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.chosen, again.chosen)
    assert first.fingerprint == again.fingerprint
    assert len(np.intersect1d(first.chosen, other.chosen)) < 50
    assert len({source.fingerprint, first.fingerprint, other.fingerprint, drawn(source, 99, 1).fingerprint}) == 4
    assert set(first.chosen) < set(drawn(source, 101, 1).chosen)


def test_these_draws_are_for_ever() -> None:
    assert drawn(Digits("train"), 10, 7).chosen.tolist() == [25, 100, 375, 503, 620, 917, 924, 1008, 1285, 1289]


def test_where_a_class_is_used_up_the_others_continue() -> None:
    labels = [0] * 2 + [1] * 20 + [3] * 20  # and nothing of class 2
    assert np.bincount(drawn(Numbers(labels), 12).labels).tolist() == [2, 5, 0, 5]
    assert np.bincount(drawn(Numbers(labels), 3).labels).tolist() == [1, 1, 0, 1]


def test_places_count_within_each_class() -> None:
    assert rank_in_class([1, 0, 1, 1, 0], np.array([5, 4, 9, 1, 2])).tolist() == [1, 1, 2, 0, 0]


def test_without_a_number_all_labels_are_used() -> None:
    source = Digits("train")
    assert labelled(source, None, 0) is source


@pytest.mark.parametrize(("count", "line"), [(9, "has 10 classes"), (1443, "there are 1,442 images to train on")])
def test_a_number_that_cannot_be_is_refused(count: int, line: str) -> None:
    with pytest.raises(TrainError, match=f"^--train_labels {count}: .*{line}"):
        labelled(Digits("train"), count, 0)


@pytest.mark.parametrize("task", ["finetune", "probe"])
def test_a_mistake_is_one_line(tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]) -> None:
    images = tree(tmp_path / "images", classes=3, each=2)
    words = ["--task", task, "--data_path", str(images), "--eval_data_path", str(images)]
    assert main([*words, "--output_dir", str(tmp_path / "run"), "--train_labels", "2"]) == 2
    said = capsys.readouterr().err
    assert said == "train: --train_labels 2: the data has 3 classes; give at least one label per class\n"
