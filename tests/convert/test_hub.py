"""hf:OWNER/NAME wherever a checkpoint is taken, from a stand-in for the hub; one line where it cannot be had."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

import convert
import spec
from convert import ConvertError, hub
from tests.convert.hub_server import serving
from tests.convert.samples import assert_equal, checkpoint

MODEL = spec.classifier(depths=(1,) * 4, dims=(8, 16, 24, 32), num_classes=10, in_chans=1)
DIGITS = {"config": {"task": "finetune", "input_size": [32], "mean": [0.4], "std": [0.3]}}
CLASSES = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three repositories: of transformers, of timm, and one without weights."""
    root = tmp_path_factory.mktemp("hub")
    (root / "us" / "empty").mkdir(parents=True)
    (root / "us" / "empty" / "config.json").write_text("{}")
    made = checkpoint(MODEL, meta={**DIGITS, "classes": CLASSES})
    for name, format in (("hf-model", "hf"), ("timm-model", "timm")):
        convert.save(made, root / "us" / name, format=format)
    arrays = root / "us" / "timm-model" / "model.safetensors"
    save_file(load_file(arrays), arrays)  # without our own header: all that is known is in config.json
    (root / "us" / "hf-model" / "pytorch_model.bin").write_bytes(b"never downloaded: there are safetensors")
    return root


@pytest.fixture(scope="module")
def environment(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a process must have to see that hub; its cache is new."""
    with serving(root) as address:
        cache = str(tmp_path_factory.mktemp("cache"))
        yield {**os.environ, "HF_ENDPOINT": address, "HF_HOME": cache, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def run(words: list[str], environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**environment, "PYTHONPATH": str(Path.cwd())}
    return subprocess.run([sys.executable, *words], env=environment, cwd=cwd, capture_output=True, text=True)


def twinnext(line: str, environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return run(["-m", "twinnext", *line.split()], environment, cwd)


def test_a_checkpoint_of_the_hub_is_converted_then_read_without_a_network(
    root: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    done = twinnext("convert translate hf:us/hf-model@v1 --to ours", environment, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert_equal(convert.load(tmp_path / "hf-model.ours.safetensors").arrays, checkpoint(MODEL).arrays, "hub")
    assert not list(Path(environment["HF_HOME"]).rglob("pytorch_model.bin"))
    offline = {**environment, "HF_ENDPOINT": "http://127.0.0.1:9"}
    again = twinnext("convert inspect hf:us/hf-model@v1", offline, tmp_path)
    assert (again.returncode, "classes" in again.stdout) == (0, True)


def test_evaluation_of_a_hub_model_takes_its_normalisation(environment: dict[str, str], tmp_path: Path) -> None:
    done = twinnext("train --task eval --finetune hf:us/timm-model --data_path digits", environment, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "from hf:us/timm-model: --input_size 32 --mean 0.4 --std 0.3 --crop_pct 0.875 --in_chans 1" in done.stdout
    assert "acc1" in done.stdout


def test_timm_builds_the_model_from_the_hub(environment: dict[str, str], tmp_path: Path) -> None:
    code = (
        "from benchmarks import outside; timm = outside.timm();"
        "m = timm.create_model('hf-hub:us/timm-model', pretrained=True); c = m.pretrained_cfg; b = m.head.fc.bias;"
        "print(m.num_classes, *c['input_size'], *c['mean'], *c['std'], c['crop_pct'], float(b.detach()[0]))"
    )
    done = run(["-c", code], environment, tmp_path)
    bias = checkpoint(MODEL).arrays["head.bias"][0]
    assert done.stdout.split() == [*["10", "1", "32", "32", "0.4", "0.3", "0.875"], str(float(bias))], done.stderr


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("us/absent", "hf:us/absent: not downloaded: .*404"),
        ("us/hf-model@v9", "hf:us/hf-model@v9: not downloaded: .*404"),
        ("us/empty", r"hf:us/empty: holds none of \*.safetensors, \*.bin"),
        ("us", "hf:us: not hf:OWNER/NAME or hf:OWNER/NAME@REVISION"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(
    name: str, reason: str, environment: dict[str, str], tmp_path: Path
) -> None:
    done = twinnext(f"convert inspect hf:{name}", environment, tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.search(reason, line), line


def test_no_network_is_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    offline = {**environment, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    for command in ("convert inspect hf:us/x", "train --finetune hf:us/x --task eval", "train --resume hf:us/x"):
        done = twinnext(command, offline, tmp_path)
        (line,) = done.stderr.splitlines()
        assert (done.returncode, "hf:us/x: not downloaded: " in line, "check the name and the network" in line) == (
            2,
            True,
            True,
        ), line


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConvertError, match=r"huggingface_hub is not installed; pip install 'twinnext\[hub\]'"):
        convert.load("hf:us/model")


def test_no_image_processor_is_written_for_images_that_transformers_would_scale_otherwise(tmp_path: Path) -> None:
    model = spec.classifier(depths=(1,) * 4, dims=(8, 16, 24, 32), num_classes=10)
    convert.save(checkpoint(model, meta=DIGITS), tmp_path / "photographs", format="hf")
    assert (tmp_path / "photographs" / "preprocessor_config.json").exists()
    units = {"uint16 0..4095": "units of 0..1 of uint16 0..4095", "int16 as is": "the unit of the values, int16 as is"}
    for number, (values, unit) in enumerate(units.items()):
        path = tmp_path / str(number)
        convert.save(checkpoint(model, meta={**DIGITS, "values": values}), path, format="hf")
        assert not (path / "preprocessor_config.json").exists()
        assert f"mean 0.4, std 0.3, in {unit} |" in (path / "README.md").read_text()
