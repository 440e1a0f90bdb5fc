"""The table of whole steps on a GPU, of rows that were measured elsewhere."""

from benchmarks import gpu
from benchmarks.engines import Row
from benchmarks.peaks import Peak

LINES = (*gpu.VISIBLE, *gpu.OTHERS)
SHARED = {"model": "convnextv2_atto", "image_size": 64, "batch_size": 8, "dtype": "bfloat16", "device": "cpu"}


def row(line: gpu.Line, seconds: float) -> Row:
    return Row(gpu._job(line, SHARED), [seconds], 10**9, 4.0)


def cells_of(text: str) -> dict[str, list[str]]:
    """The first cell of each line of a table -> the others."""
    split = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return {first: others for first, *others in split}


def test_rows_are_compared_with_rows_of_the_table() -> None:
    labels = [line.label for line in LINES]
    assert len(set(labels)) == len(labels)
    assert {line.against for line in LINES} <= {*labels, ""}


def test_the_table_has_what_was_measured() -> None:
    named = {line.label: line for line in LINES}
    seconds = {"FCMAE, torch, visible": 0.1, "FCMAE, torch, masked": 0.25, "inference, JAX": 0.02}
    rows = {label: row(named[label], each) for label, each in seconds.items()}
    found = gpu.Found(rows, {}, {"FCMAE, torch, visible": 2.0}, {"jax": [28.0, 9.0]}, ["inference, timm: not ready"])
    text = gpu.markdown(found, LINES, "a device", Peak(1.0, 1.0, "given"))
    cells = cells_of(text)
    assert [label for label in cells if label in named] == list(seconds)
    visible, inference = cells["FCMAE, torch, visible"], cells["inference, JAX"]
    assert visible[:4] == ["8", "100.0", "80", "2.50x"]
    assert visible[-3:] == ["1.0", "4", "2"]
    assert inference[0] == "2"  # a quarter of the batch
    assert inference[3] == ""  # timm's row is missing
    assert "--max_steps 30`, digits: 28 s, cached 9 s" in text
    assert text.endswith("inference, timm: not ready")
