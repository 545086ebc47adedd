"""Parsing of absl flags, and errors as one line."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from absl import flags

from sar_mixmae_jax.utils.errors import InputError, escape_unprintable


def fail(error: Exception) -> NoReturn:
    """Prints an error as one line and ends the program with 2."""
    print("error:", escape_unprintable(" ".join(str(error).split())), file=sys.stderr)
    sys.exit(2)


def fail_at_once(error: Exception) -> NoReturn:
    """As `fail`, without waiting for threads of libraries, which may never end after a failure."""
    with suppress(SystemExit):
        fail(error)
    sys.stdout.flush()
    os._exit(2)


def parse_flags(
    argv: Sequence[str],
    required: Mapping[str, str] | None = None,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> list[str]:
    """Parses absl's flags; what cannot be used ends the program with one line.

    Args:
      argv: the program and its arguments.
      required: flags that must be given, with an example of each.
      flag_values: the flags of the command.
    """
    try:
        rest = flag_values(argv)
        check_given(required or {}, flag_values)
    except (flags.Error, InputError) as error:
        fail(error)
    return rest


def check_given(required: Mapping[str, str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Refuses a command line without the flags that must be given.

    Raises:
      InputError: names those that are missing, with an example of each that is needed.
    """
    missing = [name for name in required if not flag_values[name].value]
    if missing:
        raise InputError(
            f"found no --{' and no --'.join(missing)}, expected "
            + " ".join(f"--{name}={example}" for name, example in required.items())
        )
