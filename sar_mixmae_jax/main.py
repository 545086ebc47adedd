"""The command line: `python -m sar_mixmae_jax.main --config=configs/pretrain.py --workdir=DIR`."""

import sys
from collections.abc import Sequence
from functools import partial

import jax
from absl import app, flags

from sar_mixmae_jax import finetune, pretrain, probe, process_flags, processes, runtime
from sar_mixmae_jax.errors import UserError, fail, look_up
from sar_mixmae_jax.experiment import CONFIG, parse_flags
from sar_mixmae_jax.files import check_mounted
from sar_mixmae_jax.interruption import Interruption
from sar_mixmae_jax.lifeline import Lifeline
from sar_mixmae_jax.training import Outcome

WORKDIR = flags.DEFINE_string("workdir", None, "folder for checkpoints, logs and pictures")

PROGRAMS = {"pretrain": pretrain.train, "finetune": finetune.train, "probe": probe.train}
"""What a configuration can ask for, as its field `program`."""


def main(argv: Sequence[str]) -> None:
    """Trains what the flags say, and names what was made."""
    del argv
    runtime.say_things_once()
    config = CONFIG.value
    try:
        look_up(PROGRAMS, config.program, "program")
        workdir = check_mounted("--workdir", WORKDIR.value)
        check_mounted("--config.data_dir", str(config.data_dir))
        if config.deterministic:
            runtime.ask_for_determinism()
        process_flags.start()
    except UserError as error:
        fail(error)
    if config.compilation_cache:
        runtime.cache_programs(config.compilation_cache)
    interruption = Interruption()  # after the start, which listens to SIGTERM in its own way
    if processes.is_first():
        print("devices:", ", ".join(str(device) for device in jax.devices()))
    try:
        with Lifeline():
            outcome = PROGRAMS[config.program](config, workdir, interruption)
    except UserError as error:
        fail(error)
    if processes.is_first():
        tell(outcome)
    if interruption():
        sys.exit(interruption.exit_status)


def tell(outcome: Outcome) -> None:
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
    app.run(main, flags_parser=partial(parse_flags, required=required))
