"""What a message advises works when it is done."""

import re
from pathlib import Path

import numpy as np
import pytest

import convert
import spec
from convert.__main__ import main as convert_main
from spec import SpecError
from train.__main__ import main
from train.config import cli
from train.errors import TrainError
from train.tasks.weights import load

CLASSIFIER = Path(__file__).parents[2] / "parity_tests" / "golden" / "official_classifier.pth"


def advised(line: str, path: Path, new: Path) -> list[str]:
    """The arguments of the command of convert in a line, with its flag."""
    flags = re.findall(r"with (--\w+ \S+?)[:;]", line)
    command = re.findall(r"twinnext convert (.*?)[`\n]", line)[0].replace("NEW", str(new))
    assert str(path) in command
    return [*command.split(), *" ".join(flags).split()]


def test_a_file_whose_names_have_a_prefix(tmp_path: Path) -> None:
    loaded = convert.load(CLASSIFIER, weights_only=True)
    path = tmp_path / "prefixed.npz"
    convert.save(loaded, path, format="official-dense")
    arrays = {f"backbone.{name}": array for name, array in np.load(path).items() if name != "twinnext"}
    np.savez(path, **arrays)
    with pytest.raises(TrainError) as error:
        load(str(path))
    assert str(error.value).startswith(f"{path}: ")
    assert convert_main(advised(str(error.value) + "\n", path, tmp_path / "new")) == 0
    found = load(str(tmp_path / "new"))
    assert all((found.arrays[name] == array).all() for name, array in loaded.arrays.items())


@pytest.mark.parametrize(
    ("words", "key", "prefix"),
    [(["--model_key", "net"], "net", ""), (["--model_prefix", "backbone."], "model", "backbone.")],
)
def test_a_key_or_prefix_of_the_published_scripts(words: list[str], key: str, prefix: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    state = torch.load(CLASSIFIER, weights_only=True)
    path = tmp_path / "theirs.pth"
    torch.save({key: {f"{prefix}{name}": tensor for name, tensor in state.get("model", state).items()}}, path)
    with pytest.raises(TrainError) as error:
        cli.parse(["--task", "finetune", *words])
    line = str(error.value).replace("FILE", str(path)).replace("KEY", key).replace("PREFIX", prefix)
    assert convert_main(advised(line + "\n", path, tmp_path / "new")) == 0
    assert isinstance(load(str(tmp_path / "new")).model, spec.Classifier)


def test_a_key_or_prefix_that_is_found_is_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--task", "finetune", "--model_key", "model|module", "--model_prefix", "", "--data_path", "D"]
    assert cli.parse(words) == cli.parse(["--task", "finetune", "--data_path", "D"])
    assert capsys.readouterr().err.count("note: --model_") == 2


@pytest.mark.parametrize("side", [5, 30, 33, 40, 70])
def test_an_image_size_that_is_advised_can_be_trained(side: int) -> None:
    with pytest.raises(SpecError) as error:
        spec.fcmae("convnextv2_atto", image_size=side)
    for size in re.findall(r"\d+", str(error.value).partition("try ")[2]):
        assert spec.fcmae("convnextv2_atto", image_size=int(size)).image_size == (int(size),) * 2


def test_the_home_folder_is_known_behind_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell expands it only at the start of a word."""
    monkeypatch.setenv("HOME", str(tmp_path))
    config = cli.parse(["--output_dir=~/x", "--data_path=~/images"])
    assert (config.run.output_dir, config.data.data_path) == (f"{tmp_path}/x", f"{tmp_path}/images")
    config = cli.parse(["--task", "analyse", "--finetune=~/a.pth", "--against", "~/b.pth"])
    assert (config.finetune.finetune, config.inspect.against) == (f"{tmp_path}/a.pth", (f"{tmp_path}/b.pth",))


def test_grey_images_need_no_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "x.npz"
    np.savez(data, images=np.zeros((8, 16, 16, 1), np.uint8), labels=np.arange(8) % 2)
    size = "--model none --depths 1 --dims 4 --decoder_embed_dim 4 --patch_size 4 --input_size 16 --parity_check False"
    words = [*f"{size} --batch_size 4 --max_steps 1 --picture_freq 0 --data_path".split(), str(data)]
    words += ["--output_dir", str(tmp_path / "run")]
    assert main(words) == 2
    advised = capsys.readouterr().err.rpartition("give ")[2].split()
    assert advised == ["--in_chans", "1"]
    assert main([*words, *advised]) == 0
