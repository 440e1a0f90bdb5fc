"""Where compiled programs are kept, and which options XLA gets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import backends
from backends.protocol import BackendError

if "jax" not in backends.installed():
    pytest.skip("jax is not installed", allow_module_level=True)

import jax
import jax.numpy as jnp
from jax.experimental.compilation_cache import compilation_cache

from backends.jax.compilation import VARIABLE, compiler_options, use_compilation_cache

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """jax as it was before."""
    monkeypatch.delenv(VARIABLE, raising=False)
    values = {name: getattr(jax.config, name) for name in OPTIONS}
    yield
    for name, value in values.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compile_something(size: int) -> None:
    jax.jit(lambda x: jnp.cos(x) + 1)(jnp.ones(size)).block_until_ready()


def test_programs_are_kept_in_the_folder_and_read_from_there(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "cache"
    assert use_compilation_cache(str(folder)) == f"compiled programs are kept in {folder}"
    compile_something(17)
    kept = {path.name for path in folder.glob("jit__lambda*-cache")}
    assert kept
    jax.clear_caches()
    compile_something(17)
    assert {path.name for path in folder.glob("jit__lambda*-cache")} == kept


@pytest.mark.filterwarnings("error")
def test_a_folder_that_was_filled_without_a_limit_serves(tmp_path: Path) -> None:
    use_compilation_cache(str(tmp_path))
    compile_something(5)
    for mark in tmp_path.glob("*-atime"):
        mark.unlink()
    before = len(list(tmp_path.glob("*-cache")))
    use_compilation_cache(str(tmp_path))
    compile_something(7)
    assert len(list(tmp_path.glob("*-cache"))) > before


def test_off_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert use_compilation_cache("off") == "compiled programs are not kept"
    compile_something(18)
    assert not list(tmp_path.iterdir())


def test_the_default_is_the_variable_and_then_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert use_compilation_cache().endswith(str(tmp_path / "home" / "twinnext" / "jax"))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own"))
    assert use_compilation_cache().endswith(str(tmp_path / "own"))


def test_a_folder_that_cannot_be_is_refused_if_asked_for_and_reported_if_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    with pytest.raises(BackendError, match=r"compilation cache .*file/cache: Not a directory; give another folder"):
        use_compilation_cache(str(taken / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(taken))
    assert use_compilation_cache().startswith("compiled programs are not kept: compilation cache")
    assert jax.config.jax_compilation_cache_dir is None


def test_xla_flags_win_over_our_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert compiler_options("gpu") == {"xla_gpu_enable_triton_gemm": False}
    assert compiler_options("cpu") == compiler_options("tpu") == {}
    assert compiler_options("cpu", once=True)
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_triton_gemm=true --xla_backend_optimization_level=1")
    assert compiler_options("gpu") == compiler_options("cpu", once=True) == {}
