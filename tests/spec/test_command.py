"""`python -m spec`, as a user runs it."""

import subprocess
import sys

import pytest

from tests.spec.published import SIZES

TINY = """\
convnextv2_tiny: 224 x 224 px, patches of 32 px, 19 of 49 visible

part                   sites  channels  blocks  parameters  MACs dense  MACs, 19 visible
----------------------------------------------------------------------------------------
downsample_layers.0  56 x 56        96               4,896     0.014 G           0.006 G
stages.0             56 x 56        96       3     239,904     0.738 G           0.286 G
downsample_layers.1  28 x 28       192              74,112     0.058 G           0.022 G
stages.1             28 x 28       192       3     922,176     0.716 G           0.278 G
downsample_layers.2  14 x 14       384             295,680     0.058 G           0.022 G
stages.2             14 x 14       384       9  10,841,472     2.114 G           0.820 G
downsample_layers.3    7 x 7       768           1,181,184     0.058 G           0.022 G
stages.3               7 x 7       768       3  14,305,536     0.699 G           0.271 G
proj                   7 x 7       512             393,728     0.019 G           0.007 G
mask_token             7 x 7       512                 512     0.000 G           0.000 G
decoder                7 x 7       512       1   2,130,432     0.104 G           0.104 G
pred                   7 x 7      3072           1,575,936     0.077 G           0.077 G
FCMAE                                           31,965,568     4.655 G           1.916 G
classifier                        1000          28,635,496     4.456 G
"""


def _spec(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "spec", *arguments], capture_output=True, text=True, check=False)


def test_list_prints_every_preset_with_its_counts() -> None:
    answer = _spec("list")
    assert (answer.returncode, answer.stderr) == (0, "")
    rows = {line.split()[0]: line for line in answer.stdout.splitlines()[2:]}
    assert len(rows) == len(SIZES) + 1
    for name, size in SIZES.items():
        cells = rows[name].split()
        assert cells[-4:-1] == [f"{size.classifier:,}", f"{size.fcmae:,}", f"{size.gmacs:.3f}"]


def test_show_prints_the_anatomy() -> None:
    answer = _spec("show", "convnextv2_tiny")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == TINY


def test_show_takes_another_image_mask_and_head() -> None:
    options = ("--image_size", "128", "96", "--mask_ratio", "0.5", "--num_classes", "10")
    lines = _spec("show", "convnextv2_atto", *options).stdout.splitlines()
    assert lines[0] == "convnextv2_atto: 128 x 96 px, patches of 32 px, 6 of 12 visible"
    assert lines[2].endswith("MACs, 6 visible")
    assert lines[-1].split()[:3] == ["classifier", "10", f"{3_708_400 - 321 * 990:,}"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "spec: the following arguments are required: command; python -m spec --help lists the arguments"),
        ("shw", "spec: argument command: invalid choice: 'shw' (choose from"),
        (
            "show",
            "spec show: the following arguments are required: preset; python -m spec show --help",
        ),
        ("show tiny", "spec: preset: 'tiny' is unknown; choose one of convnextv2_atto, "),
        ("show convnextv2_atto --image 32", "spec: unrecognized arguments: --image 32; did you mean '--image_size'?"),
        ("show convnextv2_atto --image_size x", "spec show: argument --image_size: invalid int value: 'x'; "),
        (
            "show convnextv2_atto --image_size 225",
            "spec: image_size: the height 225 is no multiple of the patch,",
        ),
        (
            "show convnextv2_atto --image_size 32 32 3",
            "spec: image_size: (32, 32, 3) is neither a side nor",
        ),
        ("show convnextv2_atto --mask_ratio 1", "spec: mask_ratio: 1.0 is not between 0 and 1, both excluded; "),
        ("show convnextv2_atto --num_classes -1", "spec: num_classes: -1 is not a whole number of at least 0"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_two(arguments: str, message: str) -> None:
    answer = _spec(*arguments.split())
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(message)
    assert answer.stderr.count("\n") == 1
