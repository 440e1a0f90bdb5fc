"""Labels wherever a data set keeps them: members of tars, columns of parquet, numbers or names."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.train.images import encoded, pixels
from tests.train.shards import FILES, LABELS, arrays, images, pairs, shard, table
from train.data import labels
from train.data.classes import describe, require_labels, require_several
from train.data.reading import ReadOptions
from train.data.sources import Source, open_source
from train.errors import TrainError

NAMES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def opened(path: Path, **options: Any) -> Source:
    return open_source(str(path), options=ReadOptions(**options))


def one_class(source: Source) -> str:
    """The line with which fine-tuning refuses a source of one class."""
    with pytest.raises(TrainError) as error:
        require_several(source, "--data_path")
    return str(error.value)


def about(label: int) -> str:
    """A label's JSON member."""
    return json.dumps({"label": label, "about": {"name": NAMES[label], "size": 7}})


def test_labels_in_txt_and_json_members(tmp_path: Path) -> None:
    path = shard(tmp_path / "txt.tar", pairs(range(6), lambda label: NAMES[label], "txt"))
    source = opened(path, label_key="txt")
    assert (source.classes, list(source.labels)) == (NAMES, LABELS)
    path = shard(tmp_path / "json.tar", pairs(range(6), about, "json"))
    for field, classes in (("label", ("0", "1", "2")), ("about.name", NAMES)):
        source = opened(path, label_key=f"json:{field}")
        assert (source.classes, list(source.labels)) == (classes, LABELS)


def test_a_tar_without_cls_names_the_label_keys_that_work(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", pairs(range(6), lambda label: json.dumps({"label": label}), "json"))
    assert "there is no .cls file beside them; give --label_key json:FIELD" in one_class(opened(path))
    assert "left out: 6 members that are no images (.json)" in describe(opened(path))
    with pytest.raises(TrainError, match="its JSON has no field FIELD; it has label"):
        opened(path, label_key="json:FIELD")
    assert len(opened(path, label_key="json:label").classes) == 3
    with pytest.raises(TrainError, match=r"has no \.txt file; --label_key names it"):
        opened(path, label_key="txt")
    path = shard(tmp_path / "y.tar", pairs(range(6), lambda label: NAMES[label], "txt"))
    with pytest.raises(TrainError, match="its label is not JSON; give --label_key without :label"):
        opened(path, label_key="txt:label")
    assert opened(path, label_key="txt").classes == NAMES


def test_a_json_label_needs_its_field(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", pairs(range(6), about, "json"))
    with pytest.raises(TrainError, match=r"000\.jpg: its label is a JSON object; give --label_key json:FIELD"):
        opened(path, label_key="json")


@pytest.mark.parametrize("text", ["", "-1"])
def test_a_label_that_is_no_class_is_refused(text: str, tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", pairs(range(6), lambda label: str(label) if label else text))
    with pytest.raises(TrainError, match=rf"001\.jpg: its label is '{text}', neither a class number nor a name"):
        opened(path)
    path = table(tmp_path / "x.parquet", labels=[NAMES[n] if n else text for n in LABELS])
    with pytest.raises(TrainError, match=rf"row 1 has the label '{text}', which is neither a class number nor a name"):
        opened(path)


def test_a_shard_of_hidden_labels_is_unlabelled(tmp_path: Path) -> None:
    source = opened(shard(tmp_path / "x.tar", pairs(range(6), lambda _: "-1")))
    assert list(source.labels) == [0] * 6
    assert "each label is -1: the labels are not published" in one_class(source)


def test_labels_read_with_one_key_are_not_remembered_for_another(tmp_path: Path) -> None:
    members = [*pairs(range(6)), *((f"{n:03}.txt", NAMES[0].encode()) for n in range(6))]
    path = shard(tmp_path / "x.tar", members)
    assert len(opened(path).classes) == 3
    assert opened(path, label_key="txt").classes == ("ant",)
    assert opened(path, label_key="txt").fingerprint != opened(path).fingerprint == opened(path).fingerprint


def test_one_of_two_images_of_a_key(tmp_path: Path) -> None:
    mask = encoded(pixels(9), "PNG")
    members = [*pairs(range(3)), *((f"{n:03}.seg.png", mask) for n in range(3))]
    source = opened(shard(tmp_path / "x.tar", members), image_key="jpg")
    assert [source[index][0] for index in range(3)] == FILES[:3]
    assert "left out: 3 images of other keys" in describe(source)
    assert opened(tmp_path / "x.tar", image_key="seg.png")[0][0] == mask


def test_any_column_of_labels_and_names_in_it(tmp_path: Path) -> None:
    path = table(tmp_path / "x.parquet", labels=None, species=[NAMES[n] for n in LABELS], size=["big"] * 6)
    assert "give --label_column species or --label_column size" in one_class(opened(path))
    assert "give --label_column species" in one_class(opened(path, label_column="size"))
    source = opened(path, label_column="species")
    assert (source.classes, list(source.labels)) == (NAMES, LABELS)
    with pytest.raises(TrainError, match="no column kind, which --label_column names; it has image, species, size"):
        opened(path, label_column="kind")
    assert opened(table(tmp_path / "y.parquet", labels=[NAMES[n] for n in LABELS])).classes == NAMES
    assert opened(table(tmp_path / "z.parquet", labels=[n > 0 for n in LABELS])).classes == ("0", "1")


def test_any_column_of_images(tmp_path: Path) -> None:
    path = table(tmp_path / "x.parquet", one=FILES, two=FILES[::-1])
    assert opened(path, image_column="two")[0][0] == FILES[5]
    only = table(tmp_path / "y.parquet", one=images())
    assert opened(only)[4][0] == FILES[4]


def test_files_of_other_columns_are_refused(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet")
    table(tmp_path / "b.parquet", labels=None)
    with pytest.raises(TrainError, match=r"b\.parquet: has the columns image, .*a\.parquet has image, label"):
        opened(tmp_path)


@pytest.mark.parametrize("names", [("bee", "ant", "cat"), ("ant", "bee"), None])
def test_files_that_name_other_classes_are_refused(names: tuple[str, ...] | None, tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", names=NAMES)
    table(tmp_path / "b.parquet", names=NAMES)
    assert opened(tmp_path).classes == NAMES
    table(tmp_path / "c.parquet", names=names)
    listed = ", ".join(names or ["none"])
    with pytest.raises(TrainError, match=rf"c\.parquet: .* {listed}; that of .*a\.parquet names ant, bee, cat;"):
        opened(tmp_path)


def test_a_wrong_label_is_reported_with_its_file_and_row(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", names=NAMES)
    table(tmp_path / "b.parquet", labels=[0, 1, 2, 3, 0, 1], names=NAMES)
    with pytest.raises(TrainError, match=r"b\.parquet: row 3 has the label 3, which is not one of its 3"):
        opened(tmp_path)


def test_npz_without_labels_says_where_they_go(tmp_path: Path) -> None:
    import numpy as np

    path = arrays(tmp_path / "x.npz", train_images=np.zeros((3, 8, 8), np.uint8), test_images=np.zeros((3, 8, 8)))
    assert "write an array train_labels (N,) of class numbers" in one_class(opened(path))
    with pytest.raises(TrainError, match="images without labels cannot be evaluated on; write an array train_labels"):
        require_labels(opened(path), "--data_path")
    assert "left out: the array test_images" in describe(opened(path))


def test_npz_labels_that_are_no_class_numbers_are_refused(tmp_path: Path) -> None:
    import numpy as np

    path = arrays(tmp_path / "x.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.array([0, labels.NUMBERS]))
    with pytest.raises(TrainError, match="labels has the label 1000000; class numbers are below 1,000,000"):
        opened(path)


def test_numbers_are_indices_and_names_are_sorted() -> None:
    assert labels.number(["2", "0"]) == (("0", "1", "2"), [2, 0])
    assert labels.number(["b", "a", "b"]) == (("a", "b"), [1, 0, 1])
    assert labels.number(["e\u0301", "\u00e9"]) == (("\u00e9",), [0, 0])
    assert labels.by_name(["10", "2", "1"]) == (("1", "10", "2"), [1, 2, 0])


def test_keys_may_be_given_with_their_dot(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", pairs(range(6), about, "json"))
    assert opened(path, label_key=".json:about.name", image_key=".jpg").classes == NAMES
