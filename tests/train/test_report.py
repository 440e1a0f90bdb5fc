"""The report of a run: one self-contained page, true to the run's files; a failure never ends the run."""

import base64
import io
import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tests.train import fake
from tests.train.images import tree
from train import report
from train.config import cli
from train.errors import TrainError
from train.report import plots, run_data
from train.report.__main__ import main

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """The content of a page: its text, its tags, and an error for one that is not closed."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open += [tag] if tag not in VOID else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("images"), classes=2, each=42)


@pytest.fixture(scope="module")
def run_dir(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training run with pictures."""
    folder = tmp_path_factory.mktemp("runs") / "a <run>"
    fake.train(images, folder, "--picture_freq", "2")
    return folder


def made_up(folder: Path, *lines: dict[str, float], flags: str = "") -> Path:
    """A run directory with some metrics."""
    (folder / "config.toml").write_text(f"# torch 9\n# a machine\n{cli.parse(flags.split()).to_toml()}")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_page_needs_nothing_else(run_dir: Path) -> None:
    page = Page(run_dir / "report.html")
    links = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href", "xlink:href")]
    assert sum(link.startswith("data:image/") for link in links) == 2
    assert all(link.startswith(("data:image/", "#")) for link in links)
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "base"} == set()
    source = (run_dir / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\((?!#)", source)
    assert "prefers-color-scheme: dark" in source
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


def test_a_page_shows_what_the_run_wrote(run_dir: Path) -> None:
    page, last = Page(run_dir / "report.html"), fake.metrics(run_dir)[-1]
    text = page.text
    assert "a <run> pretrain, depths 1 and dims 4, torch finished" in text
    assert f"training loss {last['loss']:.4g} last epochs 4 28 updates" in text
    assert re.search(r"Loss .* Learning rate .* Norm of the gradient .* Images per second", text)
    assert "epoch 4 earlier ones epoch 2" in text
    assert "blr 0.01 0.00015 given" in text
    assert "mask_ratio 0.6 0.6 default" in text.partition("all ")[2]
    assert "mask_ratio" not in text.partition("all ")[0]
    assert re.search(r"python 3\.\d+.* numpy .* cores, ", text.partition("Machine and versions")[2])


def test_curves_are_files_too(run_dir: Path) -> None:
    for name in ("loss", "lr"):
        svg = (run_dir / "plots" / f"{name}.svg").read_text()
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert plots.LIGHT["curve-0"] in svg
        assert "var(--" not in svg
    assert not (run_dir / "plots" / "accuracy.svg").exists()


def test_embedded_pictures_are_those_of_the_run(run_dir: Path) -> None:
    """Shown last first."""
    page = Page(run_dir / "report.html")
    urls = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    for url, step in zip(urls, (28, 14), strict=True):
        data = np.asarray(Image.open(_bytes(url)).convert("RGB")).astype(int)
        file = np.asarray(Image.open(run_dir / "pictures" / f"step-{step:08d}.png")).astype(int)
        assert data.shape == file.shape
        assert abs(data - file).mean() < 4  # WebP, where it is smaller


def _bytes(url: str | None) -> io.BytesIO:
    assert url is not None
    return io.BytesIO(base64.b64decode(url.partition("base64,")[2]))


def test_a_stopped_run_is_shown_as_such_and_resumes(images: Path, tmp_path: Path) -> None:
    fake.train(images, tmp_path, "--stop_at_step", "10")
    assert "stopped at epoch 1.429 of 4" in Page(tmp_path / "report.html").text
    fake.train(images, tmp_path)
    assert "finished" in Page(tmp_path / "report.html").text


def test_an_interrupted_run_has_a_report(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = fake.Trainer.step

    def interrupted(self: fake.Trainer, *given: object) -> object:
        if self.state.t == 9:
            raise KeyboardInterrupt
        return step(self, *given)

    monkeypatch.setattr(fake.Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fake.train(images, tmp_path)
    assert "stopped at epoch 1.286 of 4" in Page(tmp_path / "report.html").text


def test_accuracies_are_shown_with_their_best(tmp_path: Path) -> None:
    lines = [{"step": n, "epoch": n, "loss": 2 / n, "lr": 0.1, "skipped": n - 1} for n in (1, 2, 3)]
    scores = [{"acc1": acc1, "acc5": 90, "acc1_ema": 10, "val_loss": 1} for acc1 in (40, 60.5, 50)]
    scores = [{"step": n, "epoch": n, **score} for n, score in enumerate(scores, 1)]
    report.write(made_up(tmp_path, *lines, *scores, flags="--task finetune --max_steps 9"))
    text = Page(tmp_path / "report.html").text
    assert "top-1 60.50 % best, epoch 2" in text
    assert "top-1, EMA 10.00 %" in text
    assert "skipped images 3 broken, replaced by others" in text
    assert "stopped at step 3 of 9" in text
    assert "stroke-dasharray" in (tmp_path / "plots" / "accuracy.svg").read_text()


def test_empty_or_broken_metrics_are_no_obstacle(tmp_path: Path) -> None:
    made_up(tmp_path)
    report.write(tmp_path)
    assert "stopped at epoch 0 of 30" in Page(tmp_path / "report.html").text
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "epoch": 0.5, "loss": NaN, "lr": 0.1}\n{"step": 2, "epo')
    (tmp_path / "metrics.jsonl").with_name("pictures").mkdir()
    report.write(tmp_path)
    assert "training loss nan" in Page(tmp_path / "report.html").text


def test_recipes_are_named_as_the_source(tmp_path: Path) -> None:
    made_up(tmp_path, flags="--recipe finetune_tiny --data_path D --drop_path 0.3")
    found = {value.flag: value for value in run_data.load(tmp_path).values()}
    assert found["drop_path"] == ("drop_path", "0.3", "0.0", "given")
    assert found["mixup"].origin.startswith("paper, fine-tuning settings")
    assert (found["min_lr"].value, found["min_lr"].default) == ("1e-06", "1e-06")


@pytest.mark.parametrize("count", [3, plots.POINTS, plots.POINTS + 1, 9999])
def test_long_curves_are_means_inside_their_range(count: int) -> None:
    y = np.random.default_rng(0).normal(size=count)
    found = plots.curve("loss", list(range(count)), y.tolist(), 0)
    assert len(found.x) == len(found.y) == min(count, plots.POINTS)
    if found.low is None or found.high is None:
        np.testing.assert_array_equal(found.y, y)
    else:
        assert (found.low.min(), found.high.max()) == (y.min(), y.max())
        assert (found.low <= found.y).all()
        assert (found.y <= found.high).all()
        sizes = [len(group) for group in np.array_split(y, plots.POINTS)]
        assert abs(np.average(found.y, weights=sizes) - y.mean()) < 1e-12
    assert (np.diff(found.x) > 0).all()


def test_a_drawing_is_the_same_each_time_and_takes_a_pages_colours() -> None:
    curves = [plots.curve(name, [0, 1], [1, 2], index) for index, name in enumerate(("a", "b"))]
    drawn = plots.draw("Loss", "epoch", curves)
    assert drawn == plots.draw("Loss", "epoch", curves)
    assert "var(--curve-1)" in plots.inline(drawn)
    assert not re.findall(r"#[0-9a-f]{6}", plots.inline(drawn))


def test_the_command_writes_reports_anew(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_dir / "report.html").unlink()
    assert main([str(run_dir)]) == 0
    assert capsys.readouterr().out == f"{run_dir / 'report.html'}\n"
    assert (run_dir / "report.html").is_file()
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"train.report: {tmp_path}: not a run directory, it has no config.toml\n"


def test_a_report_that_cannot_be_written_is_a_line(tmp_path: Path) -> None:
    made_up(tmp_path)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(TrainError, match="the report cannot be written: Is a directory"):
        report.write(tmp_path)
    assert report.try_write(tmp_path) == f"no report: {tmp_path}: the report cannot be written: Is a directory"


def test_of_many_pictures_a_few_are_shown() -> None:
    files = [Path(str(number)) for number in range(80)]
    assert [int(file.name) for file in run_data.evenly_spaced(files, 6)] == [79, 63, 47, 32, 16, 0]
    assert run_data.evenly_spaced(files[:3], 6) == files[2::-1]


def test_the_command_of_the_page_starts_the_same_run(run_dir: Path, tmp_path: Path) -> None:
    flags = "--recipe finetune_tiny --data_path 'a b' --drop_path 0.3 --lr none --input_size 64 96 --output_dir 'it''s'"
    (tmp_path / "config.toml").write_text(cli.parse(shlex.split(flags)).to_toml())
    job = tmp_path / "job"
    job.mkdir()
    submitted = cli.parse(["--slurm", "True", "--nodes", "4"])
    (job / "config.toml").write_text(replace(submitted, cluster=replace(submitted.cluster, slurm=False)).to_toml())
    for folder in (tmp_path, run_dir):
        page = Page(report.write(folder))
        command = shlex.split(page.text.partition("Command ")[2].partition(" What differs")[0])
        assert command[:3] == ["python", "-m", "train"]
        assert cli.parse(command[3:]) == run_data.load(folder).config
    assert run_data.load(job).command() == "python -m train"


def test_date_and_duration_are_shown(tmp_path: Path) -> None:
    lines = [{"step": n, "epoch": n, "loss": 1, "time": 1.7e9 + 4000 * n} for n in (1, 2)]
    report.write(made_up(tmp_path, *lines))
    assert (
        "date 2023-11-14 23:20 to 2023-11-15 00:26 UTC duration 1:06:40 first to last"
        in Page(tmp_path / "report.html").text
    )


def test_nothing_is_wider_than_a_narrow_screen(run_dir: Path) -> None:
    """Tables are stacked, pictures shrink, words break: nothing has a smallest width or is cut off."""
    style = (run_dir / "report.html").read_text(encoding="utf-8").partition("</style>")[0]
    assert not re.search(r"min-width: (?!0)(?!40rem)|overflow-x|nowrap", style.replace("max-width: 40rem", ""))
    narrow = style.partition("@media (max-width: 40rem)")[2]
    assert "thead { display: none; }" in narrow
    assert "overflow-wrap: anywhere" in narrow


def ticks(svg: str) -> list[str]:
    return re.findall(r"<text [^>]*>([\d.]+)</text>", svg)


def test_accuracies_end_at_100() -> None:
    for values in ([99, 100], [40, 60]):
        drawn = plots.draw("Accuracy (%)", "epoch", [plots.curve("top-1", [1, 2], values, 0)], top=100)
        numbers = [float(tick) for tick in ticks(drawn)]
        assert max(numbers) == 100


@pytest.mark.parametrize("dashed", [False, True])
def test_one_point_is_drawn_as_one_point(dashed: bool) -> None:
    drawn = plots.draw("Loss", "epoch", [plots.curve("loss", [3], [0.5], 0, dashed)])
    assert len(re.findall(rf"<use [^>]*{plots.KEYS['curve-0']}", drawn)) == 1
    assert "3" in ticks(drawn)
    assert not {"2.9", "3.1", "2.95", "3.05"} & set(ticks(drawn))
