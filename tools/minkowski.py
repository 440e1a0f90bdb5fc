"""Build MinkowskiEngine for this Python and torch, on the CPU, and install it: `make minkowski`.

The package index has only its sources. They take minutes to compile, so the wheel is kept
for later environments of the same Python, torch and platform, under `~/.cache/twinnext`
(or `$XDG_CACHE_HOME/twinnext`).
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

VERSION = "0.5.4"
TOOLS = ("setuptools==77.0.3", "wheel==0.48.0", "ninja==1.13.2")  # setup.py imports what newer setuptools lack
OPTIONS = ("--blas=openblas", "--cpu_only")

ROOT = Path(__file__).parent.parent
LOADS = "import backends.torch.space.minkowski"
BLAS = "#include <cblas.h>\nint main() { return openblas_get_num_threads() == 0; }\n"


class Mistake(Exception):
    """One line: what is missing and how to get it."""


def main() -> int:
    """Leave MinkowskiEngine installed and loading; returns the exit status, 1 after one line about what is missing."""
    try:
        if not loads():
            install(wheel())
            if not loads():
                raise Mistake("installed, but it does not load; see the lines above")
        print(f"MinkowskiEngine {VERSION} is installed")
    except Mistake as mistake:
        print(f"minkowski: {mistake}", file=sys.stderr)
        return 1
    return 0


def loads() -> bool:
    """Whether another Python, started afresh, can import it."""
    if not _version("MinkowskiEngine"):
        return False
    return subprocess.run([sys.executable, "-c", LOADS], cwd=ROOT).returncode == 0


def wheel() -> Path:
    """The wheel for this environment, from the cache or built into it."""
    torch = _version("torch")
    if not torch:
        raise Mistake("torch is not installed, and the build is for one torch; pip install '.[torch]'")
    tag = "-".join((sys.implementation.cache_tag, f"torch{torch}", sysconfig.get_platform()))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "twinnext" / tag
    if not _found(cache):
        _need_openblas()
        _build(cache)
    return _found(cache)[0]


def install(path: Path) -> None:
    """Install a wheel into the running environment, in place of what is there."""
    _run(sys.executable, "-m", "pip", "install", "--no-deps", "--force-reinstall", str(path))


def _build(cache: Path) -> None:
    """Compile in a scratch folder; the finished wheel is moved into the cache at once."""
    print(f"building MinkowskiEngine {VERSION}: about four minutes on two cores", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        tools, out = Path(scratch, "tools"), Path(scratch, "wheels")
        pip = (sys.executable, "-m", "pip")
        _run(*pip, "install", "--quiet", "--target", str(tools), *TOOLS)
        # The setup.py calls `pip uninstall` and ninja by name: both must be this environment's.
        path = os.pathsep.join((str(tools / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]))
        env = {"PATH": path, "PYTHONPATH": str(tools), "SETUPTOOLS_USE_DISTUTILS": "stdlib"}
        options = [f"--config-settings=--build-option={option}" for option in OPTIONS]
        sources = ("--no-build-isolation", "--no-deps", "--no-binary=MinkowskiEngine", f"MinkowskiEngine=={VERSION}")
        _run(*pip, "wheel", "--wheel-dir", str(out), *options, *sources, env=env)
        cache.mkdir(parents=True, exist_ok=True)
        for built in out.glob("*.whl"):
            partial = shutil.copy(built, cache / f"{built.name}.{os.getpid()}")
            os.replace(partial, cache / built.name)


def _need_openblas() -> None:
    """A compiler and OpenBLAS with its headers; installed from Debian where we may."""
    if _links_openblas():
        return
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        _run("apt-get", "update", "-qq")
        _run("apt-get", "install", "-y", "-qq", "g++", "libopenblas-dev")
    if not _links_openblas():
        raise Mistake("g++ cannot link OpenBLAS; install Debian's g++ and libopenblas-dev, or their like")


def _links_openblas() -> bool:
    if not shutil.which("g++"):
        return False
    command = ("g++", "-x", "c++", "-", "-o", os.devnull, "-lopenblas")
    return subprocess.run(command, input=BLAS, text=True, capture_output=True).returncode == 0


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    if subprocess.run(command, env={**os.environ, **(env or {})}).returncode:
        raise Mistake(f"failed, as the lines above say: {' '.join(command)}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _found(cache: Path) -> list[Path]:
    return sorted(cache.glob(f"*-{VERSION}-*.whl"))


if __name__ == "__main__":
    sys.exit(main())
