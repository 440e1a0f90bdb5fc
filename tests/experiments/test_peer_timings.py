"""The timing of other codes, with stand-ins for their checkouts."""

from pathlib import Path

import pytest

from benchmarks import outside
from experiments.peer_steps import PEERS
from experiments.peer_timings import main, peer_of

STAND_IN = """
import torch

print("not an answer")

class FCMAE(torch.nn.Module):
    def __init__(self, colors, depths, dims, stem_stride, decoder_depth, patch_size, dec_dim, norm_pix_loss):
        super().__init__()
        assert (colors, dims, patch_size, dec_dim) == (3, [40, 80, 160, 320], 32, 512)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, images):
        assert images.shape == (2, 3, 64, 64)
        return (self.scale * images).square().mean(), None
"""


def checkout(folder: Path, peer: str, source: str) -> str:
    """A folder that passes for a checkout of a peer."""
    file = folder / PEERS[peer].marker
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    return str(folder)


def test_a_peer_that_does_not_run_is_one_line_and_the_others_are_timed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if not outside.has_timm():
        pytest.skip("timm is not installed")
    good = checkout(tmp_path / "good", "BSP36/fcmae", STAND_IN)
    bad = checkout(tmp_path / "bad", "BSP36/fcmae", "import no_such_module")
    assert main([bad, good, "--batch_size", "2", "--image_size", "64", "--rounds", "3"]) == 1
    said, error = capfd.readouterr()
    assert f"{bad}: BSP36/fcmae failed: ModuleNotFoundError: No module named 'no_such_module'\n" in error
    assert "Traceback" not in error
    ours, theirs = (line.split(" | ") for line in said.splitlines()[-2:])
    assert (ours[0], ours[3]) == ("| this repository", "1.00")
    assert theirs[0] == "| BSP36/fcmae"
    assert 0 < float(theirs[1]) < float(ours[1])


@pytest.mark.parametrize("name", PEERS)
def test_a_checkout_is_known_by_a_file(name: str, tmp_path: Path) -> None:
    assert peer_of(Path(checkout(tmp_path, name, "")))["engine"] == name


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["."], ".: not a checkout of a known code; it would have one of these files: submitit_pretrain.py (face"),
        ([".", "--rounds", "0"], "--batch_size and --rounds must be 1 or more"),
        ([".", "--image_size", "50"], "image_size"),
    ],
)
def test_a_mistake_is_one_line(flags: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"experiments.peer_timings: {line}")
    assert error.count("\n") == 1
