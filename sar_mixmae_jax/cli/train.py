"""Pretrain, fine-tune or probe a model.

  sar-mixmae train --config=pretrain:variant=base --workdir=runs/base
  sar-mixmae train --config=finetune:task=flood,init=runs/base --workdir=runs/flood

--config names a configuration file and its arguments; --config.FIELD=VALUE changes a field of it.
A run that was stopped continues with the same command.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags

from sar_mixmae_jax.cli import common
from sar_mixmae_jax.cli.config_file import CONFIG_HELP, parse_config_flags
from sar_mixmae_jax.training import distributed
from sar_mixmae_jax.training.distributed import Heartbeat
from sar_mixmae_jax.training.trainer import RunResult
from sar_mixmae_jax.utils.command_line import report_errors
from sar_mixmae_jax.utils.errors import look_up
from sar_mixmae_jax.utils.files import local_path, publish, stored_path

FLAGS = flags.FlagValues()
flags.DEFINE_string("config", None, CONFIG_HELP, flag_values=FLAGS)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of the run: checkpoints, logs and pictures", flag_values=FLAGS
)
common.define_process_flags(FLAGS)
REQUIRED = {"config": "pretrain", "workdir": "runs/NAME"}

TRAINERS = {"pretrain": "pretrain", "finetune": "finetune", "probe": "linear_probe"}
"""Modules of `training` by the configuration field `trainer`; only the chosen one is imported."""


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Train as the command line says, and list the files of the run."""
    config = parse_config_flags(argv, FLAGS, __doc__, REQUIRED)
    common.configure_logging()
    module = look_up(TRAINERS, config.trainer, "trainer")
    trainer = importlib.import_module(f"sar_mixmae_jax.training.{module}")
    workdir = local_path(str(WORKDIR.value))
    if config.deterministic:
        common.enable_deterministic_ops()
    common.join_processes(FLAGS)
    if config.compilation_cache:
        common.enable_compilation_cache(config.compilation_cache)
    preempted = (
        common.PreemptionHandler()
    )  # after jax.distributed, which has a SIGTERM handler of its own
    if distributed.is_primary_process():
        print("devices:", ", ".join(map(str, jax.devices())))
    with Heartbeat():
        result = trainer.train(config, workdir, preempted)
    if distributed.is_primary_process():
        from sar_mixmae_jax.run_report.page import write_page  # SciPy and scikit-learn are slow

        print_result(result, write_page(workdir))
        publish(workdir)
    if preempted():
        sys.exit(preempted.exit_status)


def print_result(result: RunResult, summary: Path) -> None:
    """Print the number of steps and the files of a run, or where it stopped."""
    step = int(result.state.step)
    if not result.finished:
        print(f"stopped after step {step}, which is saved: continue with the same command")
        return
    print(f"done: {step} steps of {result.title}")
    for name, path in {**result.files, "summary": summary}.items():
        print(f"  {name}: {stored_path(path)}")


if __name__ == "__main__":
    main(sys.argv)
