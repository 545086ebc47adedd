"""Rates of the pretraining step and its loop, and of fine-tuning and evaluation."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.measure import CacheHits, Results, in_turns, split_into_turns
from configs import finetune
from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.data.patch_dataset import batches
from sar_mixmae_jax.data.record_source import Subset
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.models import architecture
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.supervised import finetune_loss, init_model_params, predict_outputs
from sar_mixmae_jax.tasks.task_dataset import TaskDataset, load_task_dataset
from sar_mixmae_jax.training.batch_predictor import BatchPredictor
from sar_mixmae_jax.training.config import make_optimizer
from sar_mixmae_jax.training.downstream import make_finetune_objective
from sar_mixmae_jax.training.encoder_loading import encoder_architecture
from sar_mixmae_jax.training.kernel_choice import compiler_options, select_kernels
from sar_mixmae_jax.training.metric_logger import StepTimer
from sar_mixmae_jax.training.setup import RunSetup, open_feed
from sar_mixmae_jax.training.sharding import prefetch_to_device, replicate
from sar_mixmae_jax.training.train_step import (
    TrainState,
    TrainStep,
    compile_train_step,
    init_state,
    map_over_devices,
)
from sar_mixmae_jax.training.trainer import step_iterator


def measure_training(
    setup: RunSetup,
    steps: int,
    caches: Sequence[str] = ("none",),
    exclusive: AbstractContextManager[Any] | None = None,
) -> Results:
    """Measure compilation, the step on one batch, and the loop that reads its batches.

    Args:
      setup: set-up of a pretraining run.
      steps: number of timed steps, of each kind.
      caches: places of the records that the loop reads, see `open_feed`; compilation and step are
        those of the first.
      exclusive: entered before anything is timed, after compilation.
    """
    config = setup.config.copy_and_resolve_references()
    config.total_steps = steps + 10  # batches of a loop, at least as many as are read
    state = random_state(setup.init_state)
    turns, steps_per_turn = split_into_turns(steps)
    parts: dict[str, Callable[[], None]] = {}
    compilation: Results = {}

    def step_alone(train_step: TrainStep, batch: Any) -> None:
        nonlocal state
        for _ in range(steps_per_turn):
            state = train_step(state, batch)[0]
        jax.block_until_ready(state)

    def loop(train_step: TrainStep, data: Iterator[Any]) -> None:
        nonlocal state
        turn = islice(data, steps_per_turn)
        for result in step_iterator(train_step, state, turn, 0, StepTimer()):
            state = result.state
        jax.block_until_ready(state)

    for cache in caches:
        config.data.cache = cache
        feed = open_feed(dataclasses.replace(setup, config=config), 0)
        mapped = map_over_devices(
            setup.loss_fn, setup.optimizer, config.grad_accum_steps, feed.record_shapes
        )
        hits, start, cpu_start = CacheHits(), time.perf_counter(), time.process_time()
        train_step = compile_train_step(
            mapped, state, feed.batch_shapes, compiler_options(setup.kernels)
        )
        compilation = compilation or {
            "compile_seconds": time.perf_counter() - start,
            "compile_cpu_seconds": time.process_time() - cpu_start,
            "compile_cached": hits.count > 0,
        }
        parts[f"step {cache}"] = partial(step_alone, train_step, next(feed.batches)[1])
        parts[f"loop {cache}"] = partial(loop, train_step, feed.batches)
    with exclusive or nullcontext():
        for part in parts.values():
            part()
        times = in_turns(parts, turns, "pretraining")
    step_seconds = times[f"step {caches[0]}"] / steps_per_turn
    step_flops = architecture.train_step_flops(
        setup.loss_fn.settings.model.arch,  # type: ignore[attr-defined]
        config.batch_size,
    )
    return {
        **compilation,
        "step_seconds": step_seconds,
        "step_images_per_second": config.batch_size / step_seconds,
        "step_flops": step_flops,
        "flops_per_second": step_flops / step_seconds,
        "loops": {
            cache: {
                "images_per_second": config.batch_size * steps_per_turn / times[f"loop {cache}"],
                "over_step": times[f"step {cache}"] / times[f"loop {cache}"],
            }
            for cache in caches
        },
    }


def random_state(init: Callable[[], TrainState]) -> TrainState:
    """Return a replicated state of the shapes of `init()`, with random parameters.

    They are drawn on the host: `init` compiles its operations one by one, slowly on a GPU.
    """
    rng = np.random.default_rng(0)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(init))
    params = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32) / 50, zeros.params
    )
    return replicate(zeros.replace(params=params))


EVALUATED_BATCHES = 3
"""Batches evaluated for every fine-tuning step, which takes about as long."""


def measure_finetuning(
    config: ConfigDict,
    task: str,
    dataset: str,
    data_dir: Path,
    steps: int,
    exclusive: AbstractContextManager[Any] | None = None,
) -> Results:
    """Measure records per second of the fine-tuning step and of evaluation.

    Args:
      config: as returned by `configs/pretrain.py`; model, batch and dtype are used.
      task: name of the task.
      dataset: name of a dataset with labels of the task.
      data_dir: folder of built datasets.
      steps: number of timed steps.
      exclusive: entered before anything is timed, after compilation.
    """
    records = load_task_dataset(get_task(task), dataset, str(data_dir), "train", BANDS)
    finetune_config = published_finetuning(config, task, dataset)
    kernels = select_kernels(
        finetune_config, encoder_architecture(finetune_config, None, len(BANDS))
    )
    objective = make_finetune_objective(finetune_config, None, records, kernels=kernels)
    size = batch_size(config, records)
    optimizer = make_optimizer(finetune_config, lambda _: 1e-4)
    state = random_state(
        lambda: init_state(partial(init_model_params, objective), optimizer, jax.random.key(0))
    )
    source, (turns, steps_per_turn) = records.patches.source, split_into_turns(steps)
    batch = next(prefetch_to_device(batches(source, ShuffleSampler(len(source), size, seed=0))))[1]
    train_step = compile_train_step(
        map_over_devices(partial(finetune_loss, objective=objective), optimizer),
        state,
        batch,
        compiler_options(kernels),
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
    with exclusive or nullcontext():
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
