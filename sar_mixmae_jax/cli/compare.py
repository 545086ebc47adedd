"""Compares ways of pretraining: `python -m sar_mixmae_jax.cli.compare --config=configs/compare.py`.

Builds the datasets that the configuration says how to build, makes all runs that are not finished,
and writes comparison.md, comparison.json and comparison.png into the workdir.
"""

import sys
from collections.abc import Sequence
from functools import partial

from absl import app, flags

from sar_mixmae_jax.cli import common
from sar_mixmae_jax.cli.common import CONFIG, parse_config_flags
from sar_mixmae_jax.experiments import trials
from sar_mixmae_jax.experiments.runner import compare
from sar_mixmae_jax.training.preemption import PreemptionHandler
from sar_mixmae_jax.utils.command_line import fail
from sar_mixmae_jax.utils.errors import UserError
from sar_mixmae_jax.utils.files import check_local_path
from tfds_builders.build import build

WORKDIR = flags.DEFINE_string("workdir", None, "folder for all runs and the result")


def main(argv: Sequence[str]) -> None:
    """Compares what the flags say, and names what was made."""
    del argv
    common.say_things_once()
    config = CONFIG.value
    try:
        workdir = check_local_path("--workdir", WORKDIR.value)
        data_dir = check_local_path("--config.data_dir", config.data_dir)
        trials.check_comparison_config(config)
        for one in config.build.values():
            print("dataset:", build(one.name, data_dir, options=dict(one.options)))
        if config.compilation_cache:
            common.cache_programs(config.compilation_cache)
        interruption = PreemptionHandler()
        files = compare(config, workdir, interruption)
    except UserError as error:
        fail(error)
    for path in files:
        print(f"  {path}")
    if interruption():
        sys.exit(interruption.exit_status)


if __name__ == "__main__":
    required = {"config": "configs/compare.py", "workdir": "runs/compare"}
    app.run(main, flags_parser=partial(parse_config_flags, required=required))
