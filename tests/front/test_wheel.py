"""The built wheel, installed into an empty folder and used outside the checkout."""

import os
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from hatchling import build

from tests.project.tree import ROOT, SHIPPED

LINES = """
import twinnext as tn

model = tn.classifier("convnextv2_atto", num_classes=10)
tn.save(tn.Checkpoint(model, tn.backend("torch").get_arrays(tn.build(model, "torch"))), "x.safetensors")
checkpoint = tn.load("x.safetensors")
for backend in ("torch", "jax"):
    module = tn.build(checkpoint, backend)
    images = __import__("numpy").zeros((1, 32, 32, 3), "float32")
    print(tn.__version__, tn.__file__, tn.backend(backend).forward(module, images)["logits"].shape)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an installed wheel, which Python searches before the editable checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        wheel = folder / build.build_wheel(str(folder))
    finally:
        os.chdir(before)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def _run(site: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONWARNINGS": "error::ImportWarning"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_packages_and_nothing_else(site: Path) -> None:
    found = {path.name for path in site.iterdir() if path.is_dir() and not path.name.endswith(".dist-info")}
    assert found - {"bin"} == set(SHIPPED)
    (wheel,) = site.parent.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "train/report/page.html" in names
    assert not [name for name in names if "tests" in name]


def test_the_package_works_outside_the_checkout(site: Path, tmp_path: Path) -> None:
    done = _run(site, tmp_path, sys.executable, "-W", "error", "-c", LINES)
    assert done.returncode == 0, done.stderr
    version = distribution("twinnext").version
    assert done.stdout.splitlines() == [f"{version} {site / 'twinnext' / '__init__.py'} (1, 10)"] * 2


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("twinnext", ("spec", "list"), "convnextv2_huge"),
        ("twinnext", ("convert", "--help"), "torch2jax"),
        ("twinnext-convert", ("--help",), "torch2jax"),
        ("convert", ("--help",), "torch2jax"),
    ],
)
def test_the_scripts_are_installed(script: str, words: tuple[str, ...], said: str, site: Path, tmp_path: Path) -> None:
    done = _run(site, tmp_path, sys.executable, str(site / "bin" / script), *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout
