"""Rates of the pretraining step and its loop, and of fine-tuning and evaluation."""

import time
from functools import partial
from itertools import islice
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.measure import Results, in_turns, split_into_turns
from configs import finetune
from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.data.patch_dataset import PatchDataset, batches
from sar_mixmae_jax.data.record_source import Subset
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.models import architecture
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
    """Measure compilation, the step on one batch, and the loop that reads its batches.

    Args:
      config: as returned by `configs/pretrain.py`.
      patches: dataset to train on.
      steps: number of timed steps, of each kind.
    """
    objective = make_objective(config, patches)
    optimizer = adamw(lambda _: 1e-4, b1=0.9, b2=0.95, weight_decay=0.05)
    state = replicate(
        init_state(partial(init_params, objective.model), optimizer, jax.random.key(0))
    )
    sampler = ShuffleSampler(len(patches.source), config.batch_size, seed=0)
    data = prefetch_to_device(batches(patches.source, sampler))
    batch = next(data)[1]
    mapped = map_over_devices(
        partial(pretrain_loss, objective=objective), optimizer, config.grad_accum_steps
    )
    start = time.perf_counter()
    train_step = compile_train_step(mapped, state, batch)
    compile_seconds = time.perf_counter() - start
    turns, steps_per_turn = split_into_turns(steps)

    def step_alone(count: int = steps_per_turn) -> None:
        nonlocal state
        for _ in range(count):
            state = train_step(state, batch)[0]
        jax.block_until_ready(state)

    def loop() -> None:
        nonlocal state
        turn = islice(data, steps_per_turn)
        for result in step_iterator(train_step, state, turn, 0, StepTimer()):
            state = result.state
        jax.block_until_ready(state)

    step_alone(1)
    times = in_turns({"step": step_alone, "loop": loop}, turns, "pretraining")
    step_seconds = times["step"] / steps_per_turn
    step_flops = architecture.train_step_flops(objective.model.arch, config.batch_size)
    return {
        "compile_seconds": compile_seconds,
        "step_seconds": step_seconds,
        "step_images_per_second": config.batch_size / step_seconds,
        "loop_images_per_second": config.batch_size * steps_per_turn / times["loop"],
        "loop_over_step": times["step"] / times["loop"],
        "step_flops": step_flops,
        "flops_per_second": step_flops / step_seconds,
    }


EVALUATED_BATCHES = 3
"""Batches evaluated for every fine-tuning step, which takes about as long."""


def measure_finetuning(
    config: ConfigDict, task: str, dataset: str, data_dir: Path, steps: int
) -> Results:
    """Measure records per second of the fine-tuning step and of evaluation.

    Args:
      config: as returned by `configs/pretrain.py`; model, batch and dtype are used.
      task: name of the task.
      dataset: name of a dataset with labels of the task.
      data_dir: folder of built datasets.
      steps: number of timed steps.
    """
    records = load_task_dataset(get_task(task), dataset, str(data_dir), "train", BANDS)
    finetune_config = published_finetuning(config, task, dataset)
    objective = make_finetune_objective(finetune_config, None, records)
    size = batch_size(config, records)
    optimizer = make_optimizer(finetune_config, lambda _: 1e-4)
    state = replicate(
        init_state(partial(init_model_params, objective), optimizer, jax.random.key(0))
    )
    source, (turns, steps_per_turn) = records.patches.source, split_into_turns(steps)
    batch = next(prefetch_to_device(batches(source, ShuffleSampler(len(source), size, seed=0))))[1]
    train_step = compile_train_step(
        map_over_devices(partial(finetune_loss, objective=objective), optimizer), state, batch
    )
    predict = BatchPredictor(partial(predict_outputs, objective=objective), size)
    evaluated = EVALUATED_BATCHES * steps_per_turn * size
    repeated = Subset(source, np.arange(evaluated) % len(source))

    def step(count: int = steps_per_turn) -> None:
        nonlocal state
        for _ in range(count):
            state = train_step(state, batch)[0]
        jax.block_until_ready(state)

    def evaluate() -> None:
        predict(state.params, repeated)

    step(1)
    evaluate()
    times = in_turns({"step": step, "evaluation": evaluate}, turns, f"{task}, fine-tuning")
    step_rate = size * steps_per_turn / times["step"]
    evaluation_rate = evaluated / times["evaluation"]
    return {
        f"{task}_batch_size": size,
        f"{task}_step_per_second": step_rate,
        f"{task}_evaluation_per_second": evaluation_rate,
        f"{task}_evaluation_over_step": evaluation_rate / step_rate,
    }


def published_finetuning(config: ConfigDict, task: str, dataset: str) -> ConfigDict:
    """Return the published fine-tuning recipe, with layer-wise decay, for the model of `config`."""
    finetune_config = finetune.get_config(f"task={task},dataset={dataset}")
    finetune_config.optimizer.layer_decay = 0.7  # the default of a random encoder is 1
    for name in finetune_config.model:
        finetune_config.model[name] = config.model[name]
    finetune_config.dtype = config.dtype
    return finetune_config


def batch_size(config: ConfigDict, records: TaskDataset) -> int:
    """Return a batch size at which the encoder sees about as many images as in pretraining."""
    patches, side = records.patches, config.model.image_size
    images = 1 if patches.pairs is None else 2 * (patches.size // side) ** 2
    devices = jax.device_count()
    return devices * max(1, round(config.batch_size / images / devices))
