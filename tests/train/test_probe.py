"""Probes: the same features in both frameworks, k-NN by a brute-force oracle, the linear probe by its definition."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

import backends
import convert
import spec
from backends.initial import initial_arrays
from backends.protocol import State
from parity_tests import tolerances
from parity_tests.strategies import Case
from train.__main__ import main
from train.checkpoints import store
from train.config import Config, cli
from train.data.pixels import normalise
from train.data.sources import open_source
from train.tasks import probe
from train.tasks.evaluate import untrained
from train.tasks.features import Features, encoder, extract

GOLDEN = Path(__file__).parents[2] / "parity_tests" / "golden"
FCMAE, CLASSIFIER = GOLDEN / "official_fcmae.pth", GOLDEN / "official_classifier.pth"
SIZE = "--input_size 32 64 --crop_pct 1 --batch_size 4"
FRESH = "--model none --depths 1 1 2 1 --dims 8 16 24 32"
KS = (1, 3, 10)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of noise, of which the brighter is the second."""
    file = tmp_path_factory.mktemp("images") / "x.npz"
    rng = np.random.default_rng(0)
    parts = {}
    for split, count in (("train", 14), ("val", 6)):
        labels = np.arange(count) % 2
        noise = rng.integers(0, 156, (count, 32, 64, 3)) + 100 * labels[:, None, None, None]
        parts |= {f"{split}_images": noise.astype(np.uint8), f"{split}_labels": labels}
    np.savez(file, **parts)
    return file


def asked(images: Path, backend: str, *words: str) -> Config:
    flags = ["--task", "probe", "--backend", backend, "--data_path", str(images), *SIZE.split(), *words]
    return cli.parse(flags)


def features(config: Config) -> Features:
    source = open_source(config.data.data_path)
    model, arrays = encoder(config, 2)
    backend = backends.load(config.run.backend)
    cluster = backend.init_cluster("cpu")
    trainer = untrained(config, backend, cluster, model, arrays, {})
    found, broken, covered = extract(config, trainer, cluster, source, source.classes)
    assert (broken, covered.skipped) == ([], 0)
    return found


def bound(path: Path) -> float:
    """How far features of 32 x 64 images may lie apart."""
    model = spec.Classifier(replace(convert.load(path).model.encoder, grn_scope="image"), 2)
    return tolerances.forward("float32", Case(model, (1, 2), 2))


@pytest.mark.parametrize("path", [FCMAE, CLASSIFIER], ids=["pre-trained", "classifier"])
def test_features_are_the_same_in_both_frameworks(images: Path, path: Path) -> None:
    words = ("--finetune", str(path))
    found, other = (features(asked(images, backend, *words)) for backend in backends.NAMES)
    assert found.values.shape == (14, 32)
    assert found.labels.tolist() == other.labels.tolist() == [0, 1] * 7
    tolerances.assert_close(found.values, other.values, bound(path), "features")
    fresh = features(asked(images, "torch", *FRESH.split())).values
    assert tolerances.gap(fresh, other.values) > bound(path)


def test_features_of_a_pre_trained_encoder_are_its_normalised_means(images: Path) -> None:
    config = asked(images, "torch", "--precision", "float64", "--finetune", str(FCMAE))
    loaded, framework = convert.load(FCMAE), backends.load("torch")
    fcmae = replace(loaded.model, image_size=(32, 64), encoder=replace(loaded.model.encoder, grn_scope="image"))
    model = framework.build(fcmae, dtype="float64")
    framework.set_arrays(model, {name: np.asarray(loaded.arrays[name], np.float64) for name in spec.parameters(fcmae)})
    source = open_source(config.data.data_path)
    pixels = normalise(
        np.stack([source[n][0] for n in range(len(source))]).astype(np.uint8), config.data.mean, config.data.std
    )
    encoded = framework.forward(model, pixels.astype(np.float64), engine="masked")["encoded"].mean((1, 2))
    centred = encoded - encoded.mean(1, keepdims=True)
    expected = centred / np.sqrt(encoded.var(1, keepdims=True) + spec.EPS)
    tolerances.assert_close(features(config).values, expected, tolerances.GOLDEN, "features")
    assert tolerances.gap(encoded, expected) > tolerances.GOLDEN


def test_a_checkpoint_says_itself_what_its_patches_are(images: Path, tmp_path: Path) -> None:
    model = spec.classifier(depths=(1,), dims=(4,), stem_stride=4, num_classes=3)
    found, _ = encoder(asked(images, "torch", "--finetune", _saved(model, tmp_path), "--input_size", "20"), 2)
    assert found == replace(model, num_classes=2)


def _saved(model: spec.Classifier, root: Path) -> str:
    """The path of a run of the model."""
    meta = {"identity": {"model": asdict(model)}}
    store.save(root / "checkpoints", 1, State(initial_arrays(model, 0)), meta, keep=1)
    return str(root)


def random_features(count: int, seed: int, spread: float = 1.0) -> Features:
    """Clouds around five points, each farther out than the last, so that length would mislead."""
    rng = np.random.default_rng([seed, 1])
    labels = rng.integers(0, 5, count)
    centres = np.random.default_rng(2).normal(size=(5, 8)) * np.arange(1, 6)[:, None]
    return Features(centres[labels] + spread * rng.normal(size=(count, 8)), labels.astype(np.int32))


def brute_force(train: Features, queries: Features, temperature: float = 0.07) -> Iterator[np.ndarray]:
    """The votes by the definition, one pair at a time."""
    for k in KS:
        votes = np.zeros((len(queries.labels), 5))
        for row, query in enumerate(queries.values):
            cosines = [float(query @ v / np.sqrt((query @ query) * (v @ v))) for v in train.values]
            for near in sorted(range(len(cosines)), key=lambda place: -cosines[place])[:k]:
                votes[row, train.labels[near]] += np.exp(cosines[near] / temperature)
        yield votes


def worst_gap(train: Features, queries: Features, temperature: float = 0.07) -> float:
    found = list(probe.votes(train, queries, KS, 0.07, 5))
    assert [k for k, _ in found] == list(KS)
    expected = brute_force(train, queries, temperature)
    return max(tolerances.gap(votes, other) for (_, votes), other in zip(found, expected, strict=True))


def test_neighbours_vote_as_the_brute_force_oracle_says(monkeypatch: pytest.MonkeyPatch) -> None:
    train, queries = random_features(60, 0), random_features(25, 1)
    allowed = tolerances.TRAJECTORY["float64"]
    assert worst_gap(train, queries) < allowed
    assert worst_gap(train, queries, temperature=0.08) > allowed
    monkeypatch.setattr(probe, "_unit_vectors", lambda values: values)  # planted: distance instead of direction
    assert worst_gap(train, queries) > allowed


def objective(logits: np.ndarray, train: Features, l2: float) -> float:
    """Mean cross-entropy + l2 / 2 |W|^2 of the linear classifier behind some logits of the training values."""
    design = np.column_stack([train.values, np.ones(len(train.labels))])
    weights = np.linalg.lstsq(design, logits, rcond=None)[0][:-1]
    log = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return float(-log[np.arange(len(log)), train.labels].mean() + l2 / 2 * (weights**2).sum())


def test_the_linear_probe_minimises_what_it_says() -> None:
    train, penalties = random_features(80, 0, spread=2.0), (1e-3, 1e-2, 1e-1, 1.0)
    fits = {l2: probe.fit_logits(train, train, l2, 5)[0] for l2 in penalties}
    for l2 in penalties:
        values = {other: objective(logits, train, l2) for other, logits in fits.items()}
        assert min(values, key=values.__getitem__) == l2


def test_a_class_that_was_never_seen_is_never_chosen_and_two_are_enough() -> None:
    values = np.array([[-1.0], [-2.0], [1.0], [2.0]])
    logits, converged = probe.fit_logits(
        Features(values, np.array([1, 1, 3, 3])), Features(values, np.zeros(4)), 0.1, 5
    )
    assert converged
    assert logits.argmax(1).tolist() == [1, 1, 3, 3]
    assert np.isneginf(logits[:, [0, 2, 4]]).all()


def test_the_penalty_suits_the_held_out_images(images: Path) -> None:
    config = asked(images, "torch", "--probe_l2", "1e-6", "0.1")
    rng = np.random.default_rng(0)
    noise = Features(rng.normal(size=(100, 60)), rng.integers(0, 5, 100))
    noise.values[:, 0] += 3 * noise.labels
    noise.values[:20, 1:] *= 4
    assert probe.linear(config, noise, noise, 5)["l2"] == 0.1
    single = Features(rng.normal(size=(5, 3)), np.arange(5))
    assert probe.linear(config, single, single, 5)["l2"] in config.probe.probe_l2


def test_both_frameworks_write_the_same_scores(images: Path, tmp_path: Path) -> None:
    found = []
    for backend in backends.NAMES:
        words = ["--task", "probe", "--backend", backend, "--data_path", str(images), *SIZE.split()]
        words += ["--finetune", str(FCMAE), "--knn_k", "5", "--train_labels", "12"]
        assert main([*words, "--output_dir", str(tmp_path / backend)]) == 0
        found.append(json.loads((tmp_path / backend / "probe.json").read_text()))
    for each in found:
        assert each.pop("config")["task"] == "probe"
    assert found[0] == found[1]
    assert (found[0]["train_images"], found[0]["val_images"], found[0]["channels"]) == (12, 6, 32)
    assert found[0]["knn"] == [{"k": 5, "acc1": 100.0, "acc5": 100.0}]
    assert found[0]["linear"]["acc1"] == 100.0


def test_a_run_of_ours_is_probed(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _saved(spec.classifier(depths=(1,), dims=(4,), stem_stride=4, num_classes=3), tmp_path)
    words = ["--task", "probe", "--data_path", str(images), *SIZE.split(), "--knn_k", "3"]
    assert main([*words, "--finetune", path, "--output_dir", str(tmp_path / "probe")]) == 0
    assert f"encoder: {tmp_path}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--knn_k 15", "--knn_k 15: there are 14 training images; give at most that many"),
        ("--knn_k 0", "--knn_k: 0 is below 1"),
        ("--finetune {images}", "{images}: "),
        ("--in_chans 1 --mean 0 --std 1", "--in_chans 1: the model in {fcmae} takes 3; leave it out"),
        ("--input_size 50", "image_size: the height 50 is no multiple of the patch"),
        ("--data_path {folder}", "--data_path {folder}: "),
    ],
)
def test_a_mistake_is_one_line(
    images: Path, tmp_path: Path, words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"images": images, "fcmae": FCMAE, "folder": images.parent / "none"}
    flags = ["--task", "probe", "--finetune", str(FCMAE), "--data_path", str(images), *SIZE.split()]
    assert main([*flags, "--output_dir", str(tmp_path), *words.format(**places).split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"train: {line.format(**places)}")
    assert said.count("\n") == 1
