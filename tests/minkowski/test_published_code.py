"""experiments/published-code.md holds the figures that its script prints."""

import importlib.util

import pytest

from tests.project.tree import ROOT

pytestmark = [
    pytest.mark.minkowski,
    pytest.mark.skipif(
        importlib.util.find_spec("MinkowskiEngine") is None, reason="MinkowskiEngine is not installed: make minkowski"
    ),
]


def test_the_page_holds_what_the_script_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from experiments import published_code

    assert published_code.main() == 0
    assert capsys.readouterr().out in (ROOT / "experiments" / "published-code.md").read_text()
