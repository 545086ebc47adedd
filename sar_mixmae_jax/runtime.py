"""What JAX must be told before it looks for devices: deterministic kernels, the compilation cache.

Both are settings of the process, not of a function: call `prepare` first, or the backend is there
already and goes on as it is.
"""

import os
import platform
from pathlib import Path

import jax
from absl import logging

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def prepare(*, deterministic: bool, compilation_cache: str | None) -> None:
    """Tells JAX what a run asks for.

    Args:
      deterministic: GPU kernels that give the same bits every time, some of them slower.
      compilation_cache: folder of compiled programs, shared by all runs; None for none. The
        variable JAX_COMPILATION_CACHE_DIR goes before it. What is in there is run as code: it must
        belong to the user alone.
    """
    if deterministic:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC}"
    if compilation_cache and not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        # Programs for a CPU may use instructions that another host does not have.
        folder = Path(compilation_cache).expanduser() / platform.node()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            logging.warning("no compilation cache, %s cannot be made: %s", folder, error)
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
