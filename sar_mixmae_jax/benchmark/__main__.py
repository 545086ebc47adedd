"""`python -m sar_mixmae_jax.benchmark --variant=base --batch_size=8`.

Measures, in one run: reading and batching, against a loop that does everything per sample on the
host; the step of pretraining, and its loop; the step of fine-tuning against evaluation; and the
step's arithmetic against the matrix products of this machine. Prints a table, and writes JSON with
--out.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags, logging

from sar_mixmae_jax.benchmark import options
from sar_mixmae_jax.benchmark.measuring import measure
from sar_mixmae_jax.benchmark.table import table
from sar_mixmae_jax.errors import UserError, fail, parse_flags

STEPS = flags.DEFINE_integer("steps", 10, "timed steps, of each step and of the loop", 1)
PATCHES = flags.DEFINE_integer("patches", 128, "simulated patches to read", 1)
PAIRS = flags.DEFINE_integer("pairs", 16, "simulated pairs of two dates to read", 2)
OUT = flags.DEFINE_string("out", None, "JSON file to write")


def main(argv: Sequence[str]) -> None:
    """Runs all measurements."""
    del argv
    logging.set_verbosity(logging.ERROR)  # TFDS warns of every config of one's own
    try:
        results = measure(options.config_of_flags(), STEPS.value, PATCHES.value, PAIRS.value)
    except UserError as error:
        fail(error)
    print(table(results))
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    flags.adopt_module_key_flags(options)
    app.run(main, flags_parser=parse_flags)
