"""Settings of JAX before it looks for devices."""

import os
from pathlib import Path

import jax
import pytest

from sar_mixmae_jax.cli.common import enable_compilation_cache, enable_deterministic_ops


@pytest.fixture
def settings(monkeypatch):
    """JAX without a cache of the environment's; what a test sets is undone."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XLA_FLAGS", "")
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield monkeypatch
    jax.config.update("jax_compilation_cache_dir", before)


def test_deterministic_kernels_and_a_cache_for_this_host(settings, tmp_path):
    enable_deterministic_ops()
    assert os.environ["XLA_FLAGS"].split() == ["--xla_gpu_deterministic_ops=true"]
    enable_compilation_cache(str(tmp_path / "cache"))
    folder = Path(jax.config.jax_compilation_cache_dir)
    assert folder.parent == tmp_path / "cache"
    assert folder.stat().st_mode & 0o077 == 0  # what is in there is run: nobody else writes


def test_the_variable_goes_before_the_configuration(settings, tmp_path):
    settings.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "given"))  # which JAX reads itself
    enable_compilation_cache(str(tmp_path / "cache"))
    assert jax.config.jax_compilation_cache_dir is None
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_made_is_no_reason_to_stop(settings, tmp_path):
    (tmp_path / "file").write_text("")
    enable_compilation_cache(str(tmp_path / "file/cache"))
    assert jax.config.jax_compilation_cache_dir is None
