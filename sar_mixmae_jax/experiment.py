"""The flag --config, which names an experiment, and what is said to a command line of it."""

import re
from collections.abc import Mapping, Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from sar_mixmae_jax.errors import InputError, UserError, check_given, fail

CONFIG = config_flags.DEFINE_config_file("config", None, "experiment: configs/NAME.py:arguments")
UNKNOWN_FIELD = re.compile(r"[\w.]+(?=\\*['\"])")
"""The names that ml_collections quotes when a field is not there: the field, then the closest."""


def parse_flags(argv: Sequence[str], required: Mapping[str, str]) -> list[str]:
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
