"""The command line: `python -m sar_mixmae_jax.main --config=configs/pretrain.py --workdir=DIR`."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from sar_mixmae_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "experiment: configs/NAME.py:arguments")
WORKDIR = flags.DEFINE_string("workdir", None, "folder for checkpoints, logs and pictures")


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line; what cannot be parsed ends the program with one line."""
    try:
        rest = flags.FLAGS(argv)
        flags.mark_flags_as_required(["config", "workdir"])
    except (flags.Error, UserError, AttributeError, KeyError, TypeError, ValueError) as error:
        fail(error)
    if len(rest) > 1:
        fail(UserError(f"found {rest[1:]}, expected flags such as --config.batch_size=64"))
    return rest


def fail(error: Exception) -> None:
    """Prints an error as one line and ends the program."""
    message = re.sub(r"\s*\n\s*", " ", str(error).strip())
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def main(argv: Sequence[str]) -> None:
    """Trains what the flags say, and names what was made."""
    del argv
    import jax

    from sar_mixmae_jax.pretrain import train

    logging.set_verbosity(logging.WARNING)
    logging.info("devices: %s", jax.devices())
    try:
        outcome = train(CONFIG.value, Path(WORKDIR.value))
    except UserError as error:
        fail(error)
    print(f"done: {int(outcome.state.step)} steps")
    for what, path in outcome.files.items():
        print(f"  {what}: {path}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
