"""The command `sar-mixmae`, one module a command, each with its flags and a `main(argv)`.

`common` sets up logging, JAX and processes; `config_file` reads the flag --config. Commands may
import everything below them (training, inference, experiments, torch_interop, run_report, and the
dataset builders); nothing but `main.py` imports a command. Here is the dispatcher, which imports
the module of the chosen command alone.
"""

import importlib
import sys
from collections.abc import Sequence

from sar_mixmae_jax.utils.command_line import HELP_FLAGS
from sar_mixmae_jax.utils.errors import InputError, check_name, fail

PROGRAM = "sar-mixmae"
COMMANDS = {
    "build": "Build a dataset.",
    "inspect": "Report what a built dataset contains.",
    "estimate": "Estimate memory and time of a pretraining run.",
    "train": "Pretrain, fine-tune or probe a model.",
    "evaluate": "Evaluate a fine-tuned or probed model on a split.",
    "embed": "Write the features of a dataset to a file.",
    "map": "Map scenes: GeoTIFFs of classes, probabilities or features.",
    "convert": "Convert weights from and to PyTorch.",
    "compare": "Compare ways of pretraining by their downstream results.",
    "report": "Write the HTML page of a run.",
}
"""First line of the help of every command, by name."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names.

    Args:
      argv: program name, command and its arguments; by default those of the process.
    """
    _, *arguments = sys.argv if argv is None else argv
    if not arguments or arguments[0] in HELP_FLAGS:
        print(usage())
        return
    name, *rest = arguments
    try:
        check_name(COMMANDS, name, "command")
    except InputError as error:
        fail(error)
    module = importlib.import_module(f"{__name__}.{name}")
    module.main([f"{PROGRAM} {name}", *rest])


def usage() -> str:
    """Return the list of commands."""
    lines = [f"Usage: {PROGRAM} COMMAND [arguments]", "", "Commands:"]
    lines += [f"  {name:<10}{summary}" for name, summary in COMMANDS.items()]
    return "\n".join([*lines, "", f"{PROGRAM} COMMAND --help lists the flags of a command."])
