"""The two builds are twins: same files, same classes in the same order, same signatures, same words, same refusals."""

import ast
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import backends
from backends.protocol import Backend, BackendError
from parity_tests.strategies import CASES
from parity_tests.subjects import Subject

ROOT = Path(backends.__file__).parent
OWN = {
    "torch": {
        "space/minkowski.py": "an engine that exists for torch alone",
        "parallel.py": "DDP and FSDP2; XLA splits arrays by their shardings",
        "graphs.py": "CUDA graphs; XLA launches a whole update at once",
        "inference.py": "likewise, of a forward pass",
        "gelu.py": "a Phi cheap enough for a GPU; JAX has one in kernels/activation_gpu.py",
        "defaults.py": "when to compile, which JAX always does",
        "kernels/depthwise.py": "Triton's kernel; Pallas needs one per platform",
    },
    "jax": {
        "layout.py": "flax keeps axes in another order than the spec; torch does not",
        "update.py": "the step as functions, compiled before there are arrays; AdamW is `spec.Optimizer`'s",
        "activation.py": "what torch's compiler does by itself: pointwise passes around GRN, each value read once",
        "kernels/activation_gpu.py": "likewise",
        "linear.py": "XLA's weight gradient of a linear layer is slow on CPU; torch's is not",
        "depthwise_cpu.py": "XLA's depthwise convolution is slow on CPU; torch's is not",
        "kernels/depthwise_gpu.py": "Pallas needs a kernel per platform; Triton's is kernels/depthwise.py",
        "kernels/depthwise_tpu.py": "likewise",
        "kernels/plan.py": "blocks and memory of a TPU, which Pallas leaves to its user",
    },
}
"""The files without a twin, and why."""

OWN_CLASSES = {
    "Function": "how torch attaches a gradient",
    "Halo": "what torch's depthwise convolution reads: each backend has forms of its own, so the indices differ",
    "Neighbours": "the same of JAX",
    "Tiling": "of Triton's kernel; Pallas has kernels/plan.py",
}
"""The classes without a twin in files that have one, and why."""

MECHANISM = "Function"
"""The base, in norm.py, of classes that torch alone needs: JAX attaches gradients to functions."""

TWINS = ["model.py", *(f"space/{name}.py" for name in ("dense", "engines", "protocol", "visible"))]
"""Files whose public functions have the same parameters in both backends."""

both = pytest.mark.skipif(len(backends.installed()) < 2, reason="needs both frameworks")


def files(backend: str) -> set[str]:
    """The Python files of a backend that should have a twin."""
    names = {str(path.relative_to(ROOT / backend)) for path in (ROOT / backend).rglob("*.py")}
    return names - OWN[backend].keys()


def classes(path: Path) -> list[tuple[str, str]]:
    """Name and first docstring line of every class, in order."""
    nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    ours = [node for node in nodes if MECHANISM not in map(ast.unparse, node.bases) and node.name not in OWN_CLASSES]
    return [(node.name, (ast.get_docstring(node) or "").split("\n")[0]) for node in ours]


def functions(path: Path) -> list[tuple[str, list[str]]]:
    """Name and parameters of every public function, methods of public classes included, in order."""
    tree = ast.parse(path.read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    return [(node.name, [a.arg for a in (*node.args.args, *node.args.kwonlyargs)]) for node in nodes]


@pytest.mark.parametrize("backend", OWN)
def test_what_has_no_twin_is_there(backend: str) -> None:
    other = {"torch": "jax", "jax": "torch"}[backend]
    assert all((ROOT / backend / name).exists() and not (ROOT / other / name).exists() for name in OWN[backend])


def test_same_files() -> None:
    assert files("torch") == files("jax")


@pytest.mark.parametrize("name", sorted(files("torch") & files("jax")))
def test_same_classes_in_the_same_words(name: str) -> None:
    assert classes(ROOT / "torch" / name) == classes(ROOT / "jax" / name)


@pytest.mark.parametrize("name", TWINS)
def test_same_functions(name: str) -> None:
    torch, jax = (functions(ROOT / backend / name) for backend in ("torch", "jax"))
    assert [pair for pair in torch if pair[0] != "forward"] == jax  # flax calls a module by __call__


def parameters(module: ModuleType, name: str) -> list[tuple[str, object, object]]:
    """Name, kind and default of every parameter of a public function."""
    found = inspect.signature(getattr(module, name)).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in found]


@both
def test_same_api() -> None:
    torch, jax = map(backends.load, ("torch", "jax"))
    assert torch.__all__ == jax.__all__
    for name in ("build", "forward", "get_arrays", "gradients", "init_cluster", "set_arrays", "use_compilation_cache"):
        promised = parameters(backends.protocol.Backend, name)[1:]  # without self
        assert parameters(torch, name) == parameters(jax, name) == promised, name


@both
@pytest.mark.parametrize("method", ["__init__", "step", "evaluate", "export", "restore"])
def test_same_trainer(method: str) -> None:
    torch, jax = (parameters(backends.load(name).Trainer, method) for name in ("torch", "jax"))
    assert torch == jax == parameters(backends.protocol.Trainer, method)


CASE = CASES["batch of three"]
ARRAYS, IMAGES, MASK = CASE.arrays, CASE.images, CASE.mask
UNEVEN = np.array([[[0, 0], [0, 1]], [[0, 1], [1, 1]], [[0, 1], [1, 1]]], np.uint8)
MISTAKES: dict[str, Callable[[Backend, Any], object]] = {
    "missing pred.bias": lambda b, m: b.set_arrays(m, {name: ARRAYS[name] for name in ARRAYS if name != "pred.bias"}),
    "unknown head.bias": lambda b, m: b.set_arrays(m, {**ARRAYS, "head.bias": ARRAYS["pred.bias"]}),
    "pred.weight has": lambda b, m: b.set_arrays(m, {**ARRAYS, "pred.weight": ARRAYS["pred.weight"].T}),
    "channels come last": lambda b, m: b.forward(m, IMAGES.transpose(0, 3, 1, 2), MASK),
    "multiple of the patch": lambda b, m: b.forward(m, IMAGES[:, 1:], MASK),
    "1 = removed": lambda b, m: b.forward(m, IMAGES, MASK[:, :, :1]),
    "no visible patch": lambda b, m: b.forward(m, IMAGES, np.ones_like(MASK)),
    "different numbers of patches": lambda b, m: b.forward(m, IMAGES, UNEVEN, engine="visible"),
    "remove at least one patch": lambda b, m: b.gradients(m, IMAGES, np.zeros_like(MASK)),
    "'sparse' is unknown": lambda b, m: b.forward(m, IMAGES, MASK, engine="sparse"),
}
"""What the answer must say -> the mistake."""


@pytest.mark.parametrize("words", MISTAKES)
def test_same_refusals_in_one_line(words: str) -> None:
    lines = set()
    for name in backends.installed():
        backend, net = Subject(name, "masked").load(CASE.model, ARRAYS, "float32")
        with pytest.raises(BackendError) as refused:
            MISTAKES[words](backend, net)
        line = str(refused.value)
        assert words in line
        assert "\n" not in line
        lines.add(line.split(" choose ")[0])  # torch may have an engine more to choose from
    assert len(lines) == 1, lines


@pytest.mark.parametrize("name", backends.installed())
def test_parameters_may_come_in_bfloat16(name: str) -> None:
    backend, net = Subject(name, "masked").load(CASE.model, ARRAYS, "float32")
    halved = {path: array.astype(ml_dtypes.bfloat16) for path, array in ARRAYS.items()}
    backend.set_arrays(net, halved)
    found = backend.get_arrays(net)
    assert all(np.array_equal(found[path], halved[path].astype(np.float32)) for path in ARRAYS)


@pytest.mark.parametrize(("asked", "foreign"), [("torch", ("jax", "flax", "optax")), ("jax", ("torch",))])
def test_loading_one_never_imports_the_other(asked: str, foreign: tuple[str, ...]) -> None:
    if asked not in backends.installed():
        pytest.skip(f"{asked} is not installed")
    program = f"""
import sys, backends, spec
loaded = backends.load({asked!r})
net = loaded.build(spec.fcmae(depths=(1,), dims=(8,), image_size=(4, 8), mask_ratio=0.25, decoder_dim=8))
loaded.get_arrays(net)
print(*sorted(set(sys.modules) & set({foreign!r} + ("numpy",))))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT.parent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["numpy"]
