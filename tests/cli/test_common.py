"""Settings of JAX before it looks for devices, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def told(call: str, **environment: str) -> str:
    code = f"from sar_mixmae_jax.cli.common import *; {call}; import jax, os; "
    code += "print(os.environ.get('XLA_FLAGS'), jax.config.jax_compilation_cache_dir); "
    code += "jax.numpy.ones(2) + 1"
    free = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**free, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_deterministic_kernels_and_a_cache_for_this_host(tmp_path):
    cache = tmp_path / "cache"
    seen = told(f"enable_deterministic_ops(); enable_compilation_cache('{cache}')")
    flags, folder = seen.split()
    assert flags == "--xla_gpu_deterministic_ops=true"
    assert Path(folder).parent == cache
    assert Path(folder).stat().st_mode & 0o077 == 0  # what is in there is run: nobody else writes


def test_the_variable_goes_before_the_configuration(tmp_path):
    given = str(tmp_path / "given")
    seen = told(
        f"enable_compilation_cache('{tmp_path}/cache')",
        JAX_COMPILATION_CACHE_DIR=given,
    )
    assert seen.split()[-1] == given
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_made_is_no_reason_to_stop(tmp_path):
    (tmp_path / "file").write_text("")
    call = f"enable_compilation_cache('{tmp_path}/file/cache')"
    assert told(call).endswith("None")
