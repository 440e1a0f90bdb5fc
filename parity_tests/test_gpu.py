"""The laws of test_laws.py on a GPU, in both frameworks. `make gpu` runs them; LAWS_DEVICE=cpu rehearses them."""

import os

import pytest

import backends
from backends.protocol import BackendError, Dtype
from parity_tests import tolerances
from parity_tests.strategies import CASES
from parity_tests.subjects import Subject, true_gradients, truth
from parity_tests.test_laws import assert_obeys

pytestmark = pytest.mark.gpu
DEVICE = os.environ.get("LAWS_DEVICE", "cuda")
DTYPES: tuple[Dtype, ...] = ("float64", "float32", "bfloat16")
ENGINES = ("masked", "visible")
COMPILERS_OWN = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates


@pytest.fixture(params=backends.NAMES)
def backend(request: pytest.FixtureRequest) -> str:
    """A framework that has the device."""
    name: str = request.param
    if name not in backends.installed():
        pytest.skip(f"{name} is not installed")
    skip_without_device(name)
    return name


def skip_without_device(name: str) -> None:
    try:
        backends.load(name).build(CASES["features"].model, device=DEVICE)
    except BackendError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("label", ["batch scope", "masked classifier"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("engine", ENGINES)
def test_laws(backend: str, engine: str, dtype: Dtype, label: str) -> None:
    assert_obeys(Subject(backend, engine, DEVICE), CASES[label], dtype)


@COMPILERS_OWN
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("engine", ENGINES)
def test_compiled_steps(engine: str, dtype: Dtype) -> None:
    """Torch's blocks as `python -m train` compiles them: JAX always compiles."""
    torch = pytest.importorskip("torch")
    skip_without_device("torch")
    from backends.torch.compilation import compile_steps

    torch.compiler.reset()
    case = CASES["batch scope"]
    assert case.mask is not None
    ours = backends.load("torch")
    net = ours.build(case.model, dtype=dtype, device=DEVICE)
    ours.set_arrays(net, case.arrays)
    compile_steps(net)
    found = ours.forward(net, case.images, case.mask, engine=engine)
    expected = {name: truth(case)[name] for name in ("encoded", "prediction", "loss")}
    tolerances.assert_all_close(found, expected, tolerances.forward(dtype, case), f"compiled {engine} {dtype}")
    gradients = ours.gradients(net, case.images, case.mask, engine=engine)
    bound = tolerances.gradient(dtype, case)
    tolerances.assert_all_close(gradients, true_gradients(case), bound, f"compiled {engine} {dtype}, gradient")


@COMPILERS_OWN
@pytest.mark.parametrize("dtype", DTYPES)
def test_recorded_inference(dtype: Dtype) -> None:
    """Of other images and weights than those that were recorded."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA graphs here")
    from backends.torch import api
    from backends.torch.inference import record_inference

    torch.compiler.reset()
    case = CASES["classifier"]
    net = api.build(case.model, dtype=dtype, device=DEVICE)
    images = torch.from_numpy(case.images).to(DEVICE, net.dtype)
    call = record_inference(net, torch.zeros_like(images))
    api.set_arrays(net, case.arrays)
    found = {name: api.to_host(value) for name, value in call(images).items()}
    expected = {name: truth(case)[name] for name in found}
    tolerances.assert_all_close(found, expected, tolerances.forward(dtype, case), f"recorded {dtype}")
