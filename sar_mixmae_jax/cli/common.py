"""Set-up of a process that runs a command: logging, XLA, cache, several processes, signals."""

import faulthandler
import logging as standard_logging
import os
import platform
import signal
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import jax
from absl import flags, logging

from sar_mixmae_jax.training import distributed
from sar_mixmae_jax.training.checkpoint import is_checkpoint_path
from sar_mixmae_jax.utils.errors import InputError, name_buckets
from sar_mixmae_jax.utils.files import local_path

DEFAULT_CACHE = "~/.cache/sar_mixmae_jax"
"""Folder of compiled programs, unless a configuration names another."""
DETERMINISTIC_OPS = "--xla_gpu_deterministic_ops=true"


def enable_deterministic_ops() -> None:
    """Request GPU kernels that return the same bits in every run; call before JAX starts."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC_OPS}"


def enable_compilation_cache(folder: str = DEFAULT_CACHE) -> None:
    """Share compiled programs between runs; JAX_COMPILATION_CACHE_DIR takes precedence.

    Args:
      folder: path. Its content is executed, so it must be writable by the user alone.
    """
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # a start has many small
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    path = Path(folder).expanduser()
    if jax.default_backend() == "cpu":  # code for this host's instruction set
        path /= platform.node()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        logging.warning("no compilation cache: cannot create %s: %s", path, error)
        return
    jax.config.update("jax_compilation_cache_dir", str(path))


def is_not_duplicate(record: standard_logging.LogRecord) -> bool:
    """Return False for what Orbax and asyncio log; see `configure_logging`."""
    return record.name != "asyncio" and "orbax" not in record.pathname


def names_buckets(record: standard_logging.LogRecord) -> bool:
    """Return True, after putting addresses in place of mirrors of buckets."""
    record.msg, record.args = name_buckets(record.getMessage()), ()
    return True


def configure_logging() -> None:
    """Log warnings of this project to stderr, without duplicates of errors that are raised too.

    Orbax and asyncio log tracebacks of errors that they also raise; the command reports these in
    one line.
    """

    def ignore_closed_loop(unraisable: Any) -> None:
        # TensorStore writes that were pending when another one failed report to a closed loop.
        if "Event loop is closed" not in str(unraisable.exc_value):
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = ignore_closed_loop
    # Such writes are also coroutines that nothing awaits any more.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    faulthandler.enable()
    logging.use_absl_handler()
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_handler().addFilter(is_not_duplicate)
    logging.get_absl_handler().addFilter(names_buckets)


def locate_checkpoint(workdir: str | None, checkpoint: str) -> tuple[Path, str]:
    """Return a run and one of its checkpoints: best, latest or a step.

    Args:
      workdir: value of --workdir; not needed with the path of a checkpoint.
      checkpoint: value of --checkpoint: best, latest or a step of the run; or a path, of a
        checkpoint (RUN/checkpoints/STEP) or of a run, which means its latest checkpoint.

    Raises:
      InputError: a checkpoint of a run without the run.
      StorageError: the bucket that a path names cannot be used.
    """
    if checkpoint in ("best", "latest") or checkpoint.isdecimal():
        if not workdir:
            raise InputError(
                "found no --workdir, expected --workdir=RUN, or the path of a checkpoint as "
                "--checkpoint=RUN/checkpoints/STEP"
            )
        return local_path(workdir), checkpoint
    path = local_path(checkpoint)
    if is_checkpoint_path(path):
        return path.parent.parent, path.name
    return path, "latest"


def define_process_flags(flag_values: flags.FlagValues) -> None:
    """Define the flags that join several processes to one run."""
    flags.DEFINE_string(
        "coordinator_address",
        None,
        "host:port of process 0, for several processes outside a cluster that JAX detects",
        flag_values=flag_values,
    )
    flags.DEFINE_integer("num_processes", None, "number of processes", flag_values=flag_values)
    flags.DEFINE_integer(
        "process_id", None, "index of this process, from 0", flag_values=flag_values
    )


def join_processes(flag_values: flags.FlagValues) -> None:
    """Join the processes that the flags of `define_process_flags` or the cluster name."""
    distributed.join_processes(
        flag_values["coordinator_address"].value,
        flag_values["num_processes"].value,
        flag_values["process_id"].value,
    )


class PreemptionHandler:
    """Request to stop: SIGINT (Ctrl-C) or SIGTERM ends a run after the step in progress.

    A second Ctrl-C ends the program at once.
    """

    def __init__(self) -> None:
        """Install the handlers; only the main thread of a process may do so."""
        self._signal: int | None = None
        signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGTERM, self._handle)

    def __call__(self) -> bool:
        """Return True if a signal was received."""
        return self._signal is not None

    @property
    def exit_status(self) -> int:
        """Exit status of the program: 130 after Ctrl-C, as shells expect, 0 after SIGTERM."""
        return 130 if self._signal == signal.SIGINT else 0

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._signal = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
