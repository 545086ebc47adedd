"""The command line: `python -m sar_mixmae_jax.main --config=configs/pretrain.py --workdir=DIR`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from sar_mixmae_jax.errors import InputError, UserError, in_one_line
from sar_mixmae_jax.pretrain import train

CONFIG = config_flags.DEFINE_config_file("config", None, "experiment: configs/NAME.py:arguments")
WORKDIR = flags.DEFINE_string("workdir", None, "folder for checkpoints, logs and pictures")


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line; what cannot be used ends the program with one line."""
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise InputError(f"found {rest[1:]}, expected flags such as --config.batch_size=64")
        if CONFIG.value is None or WORKDIR.value is None:
            raise InputError(
                "found no --config or no --workdir, expected both: "
                "--config=configs/pretrain.py --workdir=runs/NAME"
            )
    except (KeyError, AttributeError) as error:  # ml_collections, of a field that is not there
        fail(InputError(f"unknown field in the configuration: {error.args[0]}"))
    except (flags.Error, UserError, OSError, TypeError, ValueError) as error:
        fail(error)
    return rest


def fail(error: BaseException) -> None:
    """Prints an error as one line and ends the program."""
    print(f"error: {in_one_line(error)}", file=sys.stderr)
    sys.exit(2)


def main(argv: Sequence[str]) -> None:
    """Trains what the flags say, and names what was made."""
    del argv
    logging.set_verbosity(logging.WARNING)
    print("devices:", ", ".join(str(device) for device in jax.devices()))
    try:
        outcome = train(CONFIG.value, Path(str(WORKDIR.value)))
    except UserError as error:
        fail(error)
    print(f"done: {int(outcome.state.step)} steps")
    for what, path in outcome.files.items():
        print(f"  {what}: {path}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
