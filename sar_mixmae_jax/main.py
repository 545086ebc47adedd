"""The command line: `python -m sar_mixmae_jax.main --config=configs/pretrain.py --workdir=DIR`."""

import sys
from collections.abc import Sequence
from functools import partial

import jax
from absl import app, flags

from sar_mixmae_jax.cli import common
from sar_mixmae_jax.cli.common import CONFIG, parse_config_flags
from sar_mixmae_jax.training import distributed, finetune, linear_probe, pretrain
from sar_mixmae_jax.training.distributed import Heartbeat
from sar_mixmae_jax.training.preemption import PreemptionHandler
from sar_mixmae_jax.training.trainer import RunResult
from sar_mixmae_jax.utils.command_line import fail
from sar_mixmae_jax.utils.errors import UserError, look_up
from sar_mixmae_jax.utils.files import check_local_path

WORKDIR = flags.DEFINE_string("workdir", None, "folder for checkpoints, logs and pictures")

PROGRAMS = {"pretrain": pretrain.train, "finetune": finetune.train, "probe": linear_probe.train}
"""What a configuration can ask for, as its field `program`."""


def main(argv: Sequence[str]) -> None:
    """Trains what the flags say, and names what was made."""
    del argv
    common.say_things_once()
    config = CONFIG.value
    try:
        look_up(PROGRAMS, config.trainer, "trainer")
        workdir = check_local_path("--workdir", WORKDIR.value)
        check_local_path("--config.data_dir", str(config.data_dir))
        if config.deterministic:
            common.ask_for_determinism()
        common.join_processes_from_flags()
    except UserError as error:
        fail(error)
    if config.compilation_cache:
        common.cache_programs(config.compilation_cache)
    interruption = PreemptionHandler()  # after the start, which listens to SIGTERM in its own way
    if distributed.is_primary_process():
        print("devices:", ", ".join(str(device) for device in jax.devices()))
    try:
        with Heartbeat():
            outcome = PROGRAMS[config.trainer](config, workdir, interruption)
    except UserError as error:
        fail(error)
    if distributed.is_primary_process():
        tell(outcome)
    if interruption():
        sys.exit(interruption.exit_status)


def tell(outcome: RunResult) -> None:
    """Prints how a run ended."""
    step = int(outcome.state.step)
    if not outcome.finished:
        print(f"stopped after step {step}, which is saved: the same command goes on from there")
        return
    print(f"done: {step} steps of {outcome.title}")
    for what, path in outcome.files.items():
        print(f"  {what}: {path}")


if __name__ == "__main__":
    required = {"config": "configs/pretrain.py", "workdir": "runs/NAME"}
    app.run(main, flags_parser=partial(parse_config_flags, required=required))
