"""The command line: `python -m sar_mixmae_jax.main --config=configs/pretrain.py --workdir=DIR`."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from sar_mixmae_jax import processes, runtime
from sar_mixmae_jax.errors import InputError, UserError, fail
from sar_mixmae_jax.interruption import Interruption
from sar_mixmae_jax.lifeline import Lifeline
from sar_mixmae_jax.pretrain import Outcome, train

CONFIG = config_flags.DEFINE_config_file("config", None, "experiment: configs/NAME.py:arguments")
UNKNOWN_FIELD = re.compile(r"[\w.]+(?=\\*['\"])")
"""The names that ml_collections quotes when a field is not there: the field, then the closest."""
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of the first of several processes; clusters tell by themselves"
)
PROCESSES = flags.DEFINE_integer("processes", None, "how many processes there are")
PROCESS = flags.DEFINE_integer("process", None, "which one this is, from 0")
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
    config = CONFIG.value
    try:
        runtime.prepare(
            deterministic=config.deterministic, compilation_cache=config.compilation_cache
        )
        processes.start(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    except UserError as error:
        fail(error)
    interruption = Interruption()  # after the start, which listens to SIGTERM in its own way
    lifeline = Lifeline()
    if processes.is_first():
        print("devices:", ", ".join(str(device) for device in jax.devices()))
    try:
        outcome = train(config, Path(str(WORKDIR.value)), interruption)
    except UserError as error:
        lifeline.fail(str(error))
        fail(error)
    lifeline.close()
    if processes.is_first():
        tell(outcome, stopped=interruption())
    if interruption():
        sys.exit(interruption.exit_status)


def tell(outcome: Outcome, *, stopped: bool) -> None:
    """Prints how a run ended."""
    step = int(outcome.state.step)
    if stopped:
        print(f"stopped after step {step}, which is saved: the same command goes on from there")
        return
    print(f"done: {step} steps on {outcome.dataset}")
    for what, path in outcome.files.items():
        print(f"  {what}: {path}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
