"""What the program says when the user gave it something it cannot use."""

import logging as standard_logging
import os
import platform
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from sar_mixmae_jax.training import distributed
from sar_mixmae_jax.utils.command_line import check_given, fail
from sar_mixmae_jax.utils.errors import InputError, UserError

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


COORDINATOR_ADDRESS = flags.DEFINE_string(
    "coordinator_address", None, "host:port of the first of several processes; clusters tell it"
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "how many processes there are")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "which one this is, from 0")


def join_processes_from_flags() -> None:
    """Starts what the flags say, see `processes.start`."""
    distributed.join_processes(COORDINATOR_ADDRESS.value, NUM_PROCESSES.value, PROCESS_ID.value)


CONFIG = config_flags.DEFINE_config_file("config", None, "experiment: configs/NAME.py:arguments")
UNKNOWN_FIELD = re.compile(r"[\w.]+(?=\\*['\"])")
"""The names that ml_collections quotes when a field is not there: the field, then the closest."""


def parse_config_flags(argv: Sequence[str], required: Mapping[str, str]) -> list[str]:
    """Parses the command line; what cannot be used ends the program with one line.

    Args:
      argv: the program and its arguments.
      required: flags that must be given, with an example of each.
    """
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise InputError(f"found {rest[1:]}, expected flags such as --config.batch_size=64")
        check_given(required)
        if not isinstance(CONFIG.value, ConfigDict):  # a file that is not there shows only here
            raise InputError(f"cannot read {flags.FLAGS['config'].serialize()}: check the path")
    except (KeyError, AttributeError) as error:
        unknown = UNKNOWN_FIELD.findall(str(error))
        if not unknown:
            raise
        name, *close = unknown
        hint = f"did you mean {close[0]!r}? " if close else ""
        fail(
            InputError(
                f"unknown configuration field {name!r}: {hint}the config file lists them all"
            )
        )
    except (flags.Error, UserError, OSError, TypeError, ValueError) as error:
        fail(InputError(str(error).rsplit("Error: ", 1)[-1]))  # of a traceback, the end
    return rest
