"""Fine-tuning: how fast is a step, and how fast is a split evaluated from the disk?

Both in turns, with batches of one size: the step on a batch that is there, with what a backward
pass costs; evaluation as `predict.Prediction` does it, reading included.
"""

from functools import partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import finetune as recipe
from sar_mixmae_jax import configuration
from sar_mixmae_jax.bands import BANDS
from sar_mixmae_jax.benchmark.clock import Results, in_turns, turns_of
from sar_mixmae_jax.data import Subset, batches
from sar_mixmae_jax.devices import feed, replicate
from sar_mixmae_jax.downstream import make_tuning
from sar_mixmae_jax.labelled import Labelled, open_labelled
from sar_mixmae_jax.order import Order
from sar_mixmae_jax.predict import Prediction
from sar_mixmae_jax.step import compiled, init_state, map_over_devices
from sar_mixmae_jax.tuning import outputs, random_params, share_loss

EVALUATED = 3
"""Batches evaluated for every step, which takes about as long."""


def measure_tuning(
    config: ConfigDict, task: str, dataset: str, data_dir: Path, steps: int
) -> Results:
    """Records a second of the step and of evaluation, by name.

    Args:
      config: as made by `configs/pretrain.py`: model, batch and dtype count.
      task: an entry of `tasks.TASKS`.
      dataset: for it.
      data_dir: where that is built.
      steps: timed.
    """
    labelled = open_labelled(task, dataset, str(data_dir), "train", BANDS)
    tuning_config = like_published(config, task, dataset)
    tuning = make_tuning(tuning_config, None, labelled)
    size = batch_size(config, labelled)
    optimizer = configuration.optimizer(tuning_config, lambda _: 1e-4)
    state = replicate(init_state(partial(random_params, tuning), optimizer, jax.random.key(0)))
    source, (turns, each) = labelled.patches.source, turns_of(steps)
    batch = next(feed(batches(source, Order(len(source), size, seed=0))))[1]
    train_step = compiled(
        map_over_devices(partial(share_loss, tuning=tuning), optimizer), state, batch
    )
    predict = Prediction(partial(outputs, tuning=tuning), size)
    many = Subset(source, np.arange(EVALUATED * each * size) % len(source))

    def step(count: int = each) -> None:
        nonlocal state
        for _ in range(count):
            state = train_step(state, batch)[0]
        jax.block_until_ready(state)

    def evaluate() -> None:
        predict(state.params, many)

    step(1)
    evaluate()
    times = in_turns({"step": step, "evaluation": evaluate}, turns, f"{task}, fine-tuning")
    rates = size * each / times["step"], len(many) / times["evaluation"]
    return {
        f"{task}_batch_size": size,
        f"{task}_step_per_second": rates[0],
        f"{task}_evaluation_per_second": rates[1],
        f"{task}_evaluation_over_step": rates[1] / rates[0],
    }


def like_published(config: ConfigDict, task: str, dataset: str) -> ConfigDict:
    """The published recipe of fine-tuning, layer-wise decay included, for the same model."""
    made = recipe.get_config(f"task={task},dataset={dataset}")
    made.optimizer.layer_decay = 0.7  # which a random encoder has not: here only its cost counts
    for name in made.model:
        made.model[name] = config.model[name]
    made.dtype = config.dtype
    return made


def batch_size(config: ConfigDict, labelled: Labelled) -> int:
    """So many records that the encoder sees about as many images as in pretraining."""
    patches, side = labelled.patches, config.model.image_size
    images = 1 if patches.pairs is None else 2 * (patches.size // side) ** 2
    devices = jax.device_count()
    return devices * max(1, round(config.batch_size / images / devices))
