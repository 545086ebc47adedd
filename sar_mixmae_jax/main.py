"""The command line: `python -m sar_mixmae_jax.main --config=configs/pretrain.py --workdir=DIR`."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from sar_mixmae_jax.errors import InputError, UserError, fail
from sar_mixmae_jax.interruption import Interruption
from sar_mixmae_jax.pretrain import train

CONFIG = config_flags.DEFINE_config_file("config", None, "experiment: configs/NAME.py:arguments")
UNKNOWN_FIELD = re.compile(r"[\w.]+(?=\\*['\"])")
"""The names that ml_collections quotes when a field is not there: the field, then the closest."""
WORKDIR = flags.DEFINE_string("workdir", None, "folder for checkpoints, logs and pictures")


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line; what cannot be used ends the program with one line."""
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise InputError(f"found {rest[1:]}, expected flags such as --config.batch_size=64")
        if CONFIG.value is None or not WORKDIR.value:
            raise InputError(
                "found no --config or no --workdir, expected both: "
                "--config=configs/pretrain.py --workdir=runs/NAME"
            )
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


def main(argv: Sequence[str]) -> None:
    """Trains what the flags say, and names what was made."""
    del argv
    logging.set_verbosity(logging.WARNING)
    print("devices:", ", ".join(str(device) for device in jax.devices()))
    interruption = Interruption()
    try:
        outcome = train(CONFIG.value, Path(str(WORKDIR.value)), interruption)
    except UserError as error:
        fail(error)
    if interruption():
        step = int(outcome.state.step)
        print(f"stopped after step {step}, which is saved: the same command goes on from there")
        sys.exit(interruption.exit_status)
    print(f"done: {int(outcome.state.step)} steps on {outcome.dataset}")
    for what, path in outcome.files.items():
        print(f"  {what}: {path}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
