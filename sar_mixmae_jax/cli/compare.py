"""Compare ways of pretraining by their downstream results.

  sar-mixmae compare --config=compare:quick --workdir=runs/compare

Sizes: quick (20 minutes on two cores), cpu, gpu; events (few labelled chips, one event left out);
bigearthnet (the published set-up). Builds the datasets that the configuration describes, trains
what is not finished, and writes comparison.md (of events: events.md), tables and figures into the
workdir. A comparison that was stopped continues with the same command.
"""

import sys
from collections.abc import Sequence

from absl import flags

from sar_mixmae_jax.cli import common
from sar_mixmae_jax.cli.config_file import CONFIG_HELP, parse_config_flags
from sar_mixmae_jax.experiments import event_transfer, learning_curves, runner
from sar_mixmae_jax.experiments.trials import check_comparison_config
from sar_mixmae_jax.utils.command_line import report_errors
from sar_mixmae_jax.utils.errors import look_up
from sar_mixmae_jax.utils.files import local_path, stored_path
from tfds_builders.build import build

FLAGS = flags.FlagValues()
flags.DEFINE_string("config", None, CONFIG_HELP, flag_values=FLAGS)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of all runs and of the result", flag_values=FLAGS
)
COMPARISONS = {
    "compare": runner.compare,
    "learning_curves": learning_curves.compare,
    "event_transfer": event_transfer.compare,
}
"""Functions by `config.trainer`."""
REQUIRED = {"config": "compare", "workdir": "runs/compare"}


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Run a comparison as the command line says, and list its files."""
    config = parse_config_flags(argv, FLAGS, __doc__, REQUIRED)
    common.configure_logging()
    workdir = local_path(str(WORKDIR.value))
    compare = look_up(COMPARISONS, config.trainer, "trainer")
    if "arms" in config:
        check_comparison_config(config)
    for dataset in config.build.values():
        print("dataset:", build(dataset.name, config.data_dir, options=dict(dataset.options)))
    if config.compilation_cache:
        common.enable_compilation_cache(config.compilation_cache)
    preempted = common.PreemptionHandler()
    for path in compare(config, workdir, preempted):
        print(f"  {stored_path(path)}")
    if preempted():
        sys.exit(preempted.exit_status)


if __name__ == "__main__":
    main(sys.argv)
