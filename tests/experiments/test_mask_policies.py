"""The experiments on mask policies, scaled down: tiny runs, and the picture."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import mask_pictures, mask_policies

SIZE = "--model none --depths 1 1 --dims 4 8 --patch_size 8"
FLAGS = {"pretrain_flags": "--max_steps 1 --decoder_embed_dim 4", "finetune_flags": "--max_steps 1", "flags": SIZE}


def test_the_table_shows_the_runs_and_no_run_is_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--{name}={words}" for name, words in FLAGS.items()]
    monkeypatch.setattr(sys, "argv", ["mask_policies", "--output_dir", str(tmp_path), "--seeds", "1", *flags])
    monkeypatch.setattr(mask_policies, "POLICIES", ("uniform", "importance"))
    mask_policies.main()
    printed = capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines()]
    assert [row[0] for row in rows[2:]] == ["uniform", "importance", "none"]
    assert rows[-1][1:4] == ["-"] * 3
    uniform, importance = (list(map(float, row[1:4])) for row in rows[2:4])
    assert uniform[0] != importance[0]
    assert "--mask_policy importance" in (tmp_path / "importance-0" / "pretrain" / "finished").read_text()
    assert "--finetune" not in (tmp_path / "none-0" / "finetune" / "finished").read_text()
    monkeypatch.setattr("train.__main__.main", lambda words: pytest.fail("trained again"))
    mask_policies.main()
    assert capsys.readouterr().out == printed


def test_the_table_has_means_of_losses_and_the_spread_of_scores() -> None:
    seeds = [{"block": [1.0, 2.0, 90.0, 80.0, 70.0]}, {"block": [2.0, 2.0, 92.0, 80.0, 70.0]}]
    *_, row = mask_policies.table(seeds).splitlines()
    assert row.startswith("| block | 1.5000 | 2.0000 | 91.0 ± 1.4 (90.0 to 92.0) | 80.0 ")


def test_the_picture_has_a_row_per_policy(tmp_path: Path) -> None:
    mask_pictures.main(tmp_path / "x.png")
    drawn, committed = (np.asarray(Image.open(file)) for file in (tmp_path / "x.png", mask_pictures.PICTURE))
    assert drawn.shape == committed.shape
    assert len(np.unique(drawn[..., 0])) > 50
