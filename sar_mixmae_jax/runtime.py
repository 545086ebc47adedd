"""What this process tells JAX and the other libraries: deterministic kernels, a cache, silence.

Determinism must be asked for before JAX looks for devices, the cache before it compiles.
"""

import logging as standard_logging
import os
import platform
import sys
import threading
from pathlib import Path
from typing import Any

import jax
from absl import logging

CACHE = "~/.cache/sar_mixmae_jax"
"""Where compiled programs are kept, unless a configuration says otherwise."""
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def ask_for_determinism() -> None:
    """GPU kernels that give the same bits every time, some of them slower."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC}"


def cache_programs(cache: str) -> None:
    """Keeps compiled programs for all runs, unless JAX_COMPILATION_CACHE_DIR says where already.

    Args:
      cache: folder. What is in there is run as code: it must belong to the user alone.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    folder = Path(cache).expanduser()
    if jax.default_backend() == "cpu":  # they may use instructions that another host does not have
        folder /= platform.node()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        logging.warning("no compilation cache, %s cannot be made: %s", folder, error)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def say_things_once() -> None:
    """Keeps Orbax, asyncio and tensorboardX from printing, with tracebacks, what they raise too.

    What they raise is told in one line where it is caught.
    """

    def is_ours(record: standard_logging.LogRecord) -> bool:
        return record.name != "asyncio" and "orbax" not in record.pathname

    def unless_abandoned(unraisable: Any) -> None:
        # Writes that were under way when one of them failed have nobody to report to.
        if "Event loop is closed" not in str(unraisable.exc_value):
            sys.__unraisablehook__(unraisable)

    def unless_watched(died: threading.ExceptHookArgs) -> None:
        # Its thread is watched by `logs`, which tells of its end.
        if not type(died.thread).__module__.startswith("tensorboardX"):
            threading.__excepthook__(died)

    logging.set_verbosity(logging.WARNING)
    logging.get_absl_handler().addFilter(is_ours)
    sys.unraisablehook = unless_abandoned
    threading.excepthook = unless_watched
