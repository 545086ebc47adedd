"""Compares ways of pretraining: `python -m sar_mixmae_jax.compare --config=configs/compare.py`.

Builds the datasets that the configuration says how to build, makes all runs that are not finished,
and writes comparison.md, comparison.json and comparison.png into the workdir.
"""

import sys
from collections.abc import Sequence
from functools import partial

from absl import app, flags

from sar_mixmae_jax import runtime
from sar_mixmae_jax.comparison import recipes
from sar_mixmae_jax.comparison.runner import compare
from sar_mixmae_jax.errors import UserError, fail
from sar_mixmae_jax.experiment import CONFIG, parse_flags
from sar_mixmae_jax.files import check_mounted
from sar_mixmae_jax.interruption import Interruption
from tfds_builders.build import build

WORKDIR = flags.DEFINE_string("workdir", None, "folder for all runs and the result")


def main(argv: Sequence[str]) -> None:
    """Compares what the flags say, and names what was made."""
    del argv
    runtime.say_things_once()
    config = CONFIG.value
    try:
        workdir = check_mounted("--workdir", WORKDIR.value)
        data_dir = check_mounted("--config.data_dir", config.data_dir)
        recipes.check(config)
        for one in config.build.values():
            print("dataset:", build(one.name, data_dir, options=dict(one.options)))
        if config.compilation_cache:
            runtime.cache_programs(config.compilation_cache)
        interruption = Interruption()
        files = compare(config, workdir, interruption)
    except UserError as error:
        fail(error)
    for path in files:
        print(f"  {path}")
    if interruption():
        sys.exit(interruption.exit_status)


if __name__ == "__main__":
    required = {"config": "configs/compare.py", "workdir": "runs/compare"}
    app.run(main, flags_parser=partial(parse_flags, required=required))
