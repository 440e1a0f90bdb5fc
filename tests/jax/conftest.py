"""A GPU that newer versions of jax ask for before they lower Triton's kernels, on a machine without one."""

import importlib.util

import pytest

INFO = "jax._src.pallas.triton.gpu_info"


@pytest.fixture
def h200(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing where jax does not ask (before 0.11.2)."""
    if importlib.util.find_spec(INFO) is None:
        return
    import jax
    from jax.sharding import AbstractDevice, AbstractMesh

    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="cuda")
    module = importlib.import_module(INFO)
    with jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("devices",), abstract_device=device)):
        info = module.get_gpu_info()
    monkeypatch.setattr(module, "get_gpu_info", lambda: info)  # the mesh itself would change what is lowered
