"""Pretraining: how fast is a step, and how much of that does the loop keep that reads the data?"""

from functools import partial
from itertools import islice

import jax
from ml_collections import ConfigDict

from sar_mixmae_jax import configuration, flops
from sar_mixmae_jax.benchmark.clock import Results, in_turns, seconds, turns_of
from sar_mixmae_jax.data import Patches, batches
from sar_mixmae_jax.devices import feed, replicate
from sar_mixmae_jax.loop import run_steps
from sar_mixmae_jax.mixmae import random_params
from sar_mixmae_jax.objective import share_loss
from sar_mixmae_jax.optimizer import adamw
from sar_mixmae_jax.order import Order
from sar_mixmae_jax.step import compiled, init_state, map_over_devices
from sar_mixmae_jax.stopwatch import Stopwatch


def measure_training(config: ConfigDict, patches: Patches, steps: int) -> Results:
    """Compile time, the step on a batch that is there, and the loop that reads its batches.

    Args:
      config: as made by `configs/pretrain.py`.
      patches: to train on.
      steps: timed, of each.
    """
    objective = configuration.objective(config, patches)
    optimizer = adamw(lambda _: 1e-4, b1=0.9, b2=0.95, weight_decay=0.05)
    state = replicate(
        init_state(partial(random_params, objective.model), optimizer, jax.random.key(0))
    )
    order = Order(len(patches.source), config.batch_size, seed=0)
    data = feed(batches(patches.source, order))
    batch = next(data)[1]
    mapped = map_over_devices(
        partial(share_loss, objective=objective), optimizer, config.accumulate
    )
    made = []
    compiling = seconds(lambda: made.append(compiled(mapped, state, batch)))
    train_step, (turns, each) = made[0], turns_of(steps)

    def step_alone(count: int = each) -> None:
        nonlocal state
        for _ in range(count):
            state = train_step(state, batch)[0]
        jax.block_until_ready(state)

    def loop() -> None:
        nonlocal state
        for done in run_steps(train_step, state, islice(data, each), 0, Stopwatch()):
            state = done.state
        jax.block_until_ready(state)

    step_alone(1)
    times = in_turns({"step": step_alone, "loop": loop}, turns, "pretraining")
    step, count = times["step"] / each, flops.train_step(objective.model.size, config.batch_size)
    return {
        "compile_seconds": compiling,
        "step_seconds": step,
        "step_images_per_second": config.batch_size / step,
        "loop_images_per_second": config.batch_size * each / times["loop"],
        "loop_over_step": times["step"] / times["loop"],
        "step_flops": count,
        "flops_per_second": count / step,
    }
