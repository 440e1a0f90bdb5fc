"""Which folder of `train` may import which, the lowest first, and that an import upward would be seen."""

from pathlib import Path

import pytest

from tests.project.tree import ROOT, imports, sources

ROOMS = ("errors", "config", "data", "checkpoints", "logs", "report", "tasks")
"""`train` itself stands above them, but for the file `errors.py`, which all may import."""


def violations(path: Path, source: str) -> set[str]:
    """The imports of a file of `train` from rooms above its own."""
    place = path.parts[1].removesuffix(".py")
    if place not in ROOMS:
        return set()
    allowed = [["train", room] for room in ROOMS[: ROOMS.index(place) + 1]]
    named = {name: name.split(".") for name in imports(source)}
    return {name for name, parts in named.items() if parts[0] == "train" and parts[:2] not in allowed}


def test_every_room_of_train_imports_from_rooms_below() -> None:
    found = {path: violations(path, (ROOT / path).read_text()) for path in sources("train")}
    assert {path.parts[1] for path in found if len(path.parts) > 2} == {*ROOMS[1:]}
    assert {str(path): wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("train/errors.py", "from train.config import Config"),
        ("train/config/config.py", "from train.data.sources import open_source"),
        ("train/data/feed.py", "from train.tasks.task import Task"),
        ("train/logs/run_log.py", "def late():\n    from train.tasks import accuracy"),
        ("train/report/page.py", "import train.tasks.analyse"),
        ("train/tasks/finetune.py", "from train import run"),
        ("train/tasks/finetune.py", "from train.loop import Run"),
    ],
)
def test_a_planted_import_upward_is_seen(path: str, line: str) -> None:
    assert violations(Path(path), line)
