"""What JAX must be told before it looks for devices: deterministic kernels, the compilation cache.

Both are settings of the process, not of a function: call `prepare` first, or the backend is there
already and goes on as it is.
"""

import logging as standard_logging
import os
import platform
import sys
from pathlib import Path
from typing import Any

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


def say_things_once() -> None:
    """Keeps Orbax and asyncio from printing, with tracebacks, what they raise too.

    What they raise is told in one line where it is caught.
    """

    def is_ours(record: standard_logging.LogRecord) -> bool:
        return record.name != "asyncio" and "orbax" not in record.pathname

    def unless_abandoned(unraisable: Any) -> None:
        # Writes that were under way when one of them failed have nobody to report to.
        if "Event loop is closed" not in str(unraisable.exc_value):
            sys.__unraisablehook__(unraisable)

    logging.set_verbosity(logging.WARNING)
    logging.get_absl_handler().addFilter(is_ours)
    sys.unraisablehook = unless_abandoned
