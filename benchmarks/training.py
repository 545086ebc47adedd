"""Pretraining: how fast is a step, and how much of that does the loop keep that reads the data?"""

from functools import partial
from itertools import islice
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.measure import Results, in_turns, seconds, split_into_turns
from configs import finetune as recipe
from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.data.patch_dataset import PatchDataset, Subset, batches
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.models import flops
from sar_mixmae_jax.models.mixmae import init_params
from sar_mixmae_jax.objectives.reconstruction import pretrain_loss
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.supervised import finetune_loss, init_model_params, predict_outputs
from sar_mixmae_jax.tasks.task_dataset import TaskDataset, load_task_dataset
from sar_mixmae_jax.training.batch_predictor import BatchPredictor
from sar_mixmae_jax.training.config import make_objective, make_optimizer
from sar_mixmae_jax.training.downstream import make_finetune_objective
from sar_mixmae_jax.training.metric_logger import StepTimer
from sar_mixmae_jax.training.optimizer import adamw
from sar_mixmae_jax.training.sharding import prefetch_to_device, replicate
from sar_mixmae_jax.training.train_step import compile_train_step, init_state, map_over_devices
from sar_mixmae_jax.training.trainer import step_iterator


def measure_training(config: ConfigDict, patches: PatchDataset, steps: int) -> Results:
    """Compile time, the step on a batch that is there, and the loop that reads its batches.

    Args:
      config: as made by `configs/pretrain.py`.
      patches: to train on.
      steps: timed, of each.
    """
    objective = make_objective(config, patches)
    optimizer = adamw(lambda _: 1e-4, b1=0.9, b2=0.95, weight_decay=0.05)
    state = replicate(
        init_state(partial(init_params, objective.model), optimizer, jax.random.key(0))
    )
    order = ShuffleSampler(len(patches.source), config.batch_size, seed=0)
    data = prefetch_to_device(batches(patches.source, order))
    batch = next(data)[1]
    mapped = map_over_devices(
        partial(pretrain_loss, objective=objective), optimizer, config.grad_accum_steps
    )
    made = []
    compiling = seconds(lambda: made.append(compile_train_step(mapped, state, batch)))
    train_step, (turns, each) = made[0], split_into_turns(steps)

    def step_alone(count: int = each) -> None:
        nonlocal state
        for _ in range(count):
            state = train_step(state, batch)[0]
        jax.block_until_ready(state)

    def loop() -> None:
        nonlocal state
        for done in step_iterator(train_step, state, islice(data, each), 0, StepTimer()):
            state = done.state
        jax.block_until_ready(state)

    step_alone(1)
    times = in_turns({"step": step_alone, "loop": loop}, turns, "pretraining")
    step, count = (
        times["step"] / each,
        flops.train_step_flops(objective.model.arch, config.batch_size),
    )
    return {
        "compile_seconds": compiling,
        "step_seconds": step,
        "step_images_per_second": config.batch_size / step,
        "loop_images_per_second": config.batch_size * each / times["loop"],
        "loop_over_step": times["step"] / times["loop"],
        "step_flops": count,
        "flops_per_second": count / step,
    }


EVALUATED = 3
"""Batches evaluated for every step, which takes about as long."""


def measure_tuning(
    config: ConfigDict, task: str, dataset: str, data_dir: Path, steps: int
) -> Results:
    """Records a second of the step and of evaluation, by name.

    Args:
      config: as made by `configs/pretrain.py`: model, batch and dtype count.
      task: name of the task.
      dataset: for it.
      data_dir: where that is built.
      steps: timed.
    """
    labelled = load_task_dataset(get_task(task), dataset, str(data_dir), "train", BANDS)
    tuning_config = like_published(config, task, dataset)
    tuning = make_finetune_objective(tuning_config, None, labelled)
    size = batch_size(config, labelled)
    optimizer = make_optimizer(tuning_config, lambda _: 1e-4)
    state = replicate(init_state(partial(init_model_params, tuning), optimizer, jax.random.key(0)))
    source, (turns, each) = labelled.patches.source, split_into_turns(steps)
    batch = next(prefetch_to_device(batches(source, ShuffleSampler(len(source), size, seed=0))))[1]
    train_step = compile_train_step(
        map_over_devices(partial(finetune_loss, objective=tuning), optimizer), state, batch
    )
    predict = BatchPredictor(partial(predict_outputs, objective=tuning), size)
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


def batch_size(config: ConfigDict, labelled: TaskDataset) -> int:
    """So many records that the encoder sees about as many images as in pretraining."""
    patches, side = labelled.patches, config.model.image_size
    images = 1 if patches.pairs is None else 2 * (patches.size // side) ** 2
    devices = jax.device_count()
    return devices * max(1, round(config.batch_size / images / devices))
