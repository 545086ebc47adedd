"""Pretraining: `train(config, workdir)`, from a built dataset to checkpoints, logs and pictures."""

import importlib.metadata
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax import configuration
from sar_mixmae_jax.checkpoint import Checkpoints
from sar_mixmae_jax.data import Patches, batches, open_patches
from sar_mixmae_jax.errors import DivergedError, InputError
from sar_mixmae_jax.inspection import Inspector
from sar_mixmae_jax.logs import MetricsLog, progress_bar
from sar_mixmae_jax.optimizer import adamw, learning_rate, peak_learning_rate
from sar_mixmae_jax.step import (
    Objective,
    TrainState,
    TrainStep,
    init_state,
    map_over_devices,
    replicate,
)

PACKAGES = (
    "array_record",
    "flax",
    "grain",
    "jax",
    "numpy",
    "optax",
    "orbax-checkpoint",
    "sar-mixmae-jax",
    "tensorflow-datasets",
)


class Done(NamedTuple):
    """A step that was dispatched; its arrays may still be in the making.

    Attributes:
      step: its number, from 1.
      state: after it, until the next step takes the buffers.
      ids: of the patches in its batch, device by device.
      metrics: "loss" and "gradient_norm".
      patch_errors: (device, batch) weighted error of every patch.
    """

    step: int
    state: TrainState
    ids: np.ndarray
    metrics: dict[str, jax.Array]
    patch_errors: jax.Array


class Outcome(NamedTuple):
    """What a run leaves behind.

    Attributes:
      state: after the last step.
      files: what was made, by what it is.
    """

    state: TrainState
    files: dict[str, Path]


def train(config: ConfigDict, workdir: Path) -> Outcome:
    """Pretrains, or goes on where the run in `workdir` was.

    Args:
      config: as made by `configs/pretrain.py`.
      workdir: for everything the run writes.

    Raises:
      InputError: the configuration, the dataset or the workdir cannot be used.
      DivergedError: the loss or its gradient is not finite; the last checkpoint stays.
    """
    # ---- what to compute; refused settings are refused before anything is read
    if jax.process_count() > 1:
        raise InputError(
            f"found {jax.process_count()} processes, expected one: a run uses all devices of one "
            "process, and cannot save from several yet"
        )
    objective = configuration.objective(config)
    configuration.check_batch(config, jax.device_count())

    # ---- data
    patches = open_patches(config.dataset, config.data_dir, config.split, config.bands)
    data = batches(
        patches.source,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    steps_per_epoch = len(patches.source) // config.batch_size
    steps = config.max_steps or max(1, round(config.epochs * steps_per_epoch))

    objective = configuration.with_statistics(objective, patches)

    # ---- optimizer and step
    schedule = learning_rate(
        peak=peak_learning_rate(config.optimizer.base_learning_rate, config.batch_size),
        floor=config.optimizer.floor,
        warmup_epochs=config.warmup_epochs,
        schedule_epochs=config.schedule_epochs,
        steps_per_epoch=steps_per_epoch,
    )
    optimizer = adamw(
        schedule,
        b1=config.optimizer.b1,
        b2=config.optimizer.b2,
        weight_decay=config.optimizer.weight_decay,
    )
    train_step = map_over_devices(objective, optimizer)

    # ---- start: resume, else scratch
    configuration.claim_workdir(config, workdir)
    checkpoints = Checkpoints(workdir, keep=config.keep_checkpoints)
    state = replicate(init_state(objective.model, optimizer, jax.random.key(config.seed)))
    if checkpoints.latest_step() is not None:
        state = checkpoints.restore(state, data)
        logging.info("going on after step %d", int(state.step))
    start = int(state.step)
    metadata = describe_run(config, patches, objective)

    # ---- what is written along the way
    log = MetricsLog(workdir, start)
    picture = workdir / "reconstruction.png"
    inspector = Inspector(
        objective,
        patches,
        count=config.diagnostic_patches,
        drawn=config.picture_patches,
        seed=config.seed,
    )

    def report(step: int, params: Any) -> None:
        scalars, panels = inspector.look(params)
        if step == 0:
            inspector.warn(scalars)
        title = f"{config.model.variant} on {patches.name}, step {step}"
        explained = f"{100 * scalars['explained']:.1f} % of the weighted variance explained"
        inspector.draw(panels, picture, f"{title}: {explained}")
        log.write(step, scalars)
        log.picture(step, "reconstruction", picture)

    if start == 0:
        report(0, state.params)

    # ---- loop
    clock, clock_step = time.monotonic(), start
    with progress_bar(min(start, steps), steps) as bar:
        for done in run_steps(train_step, state, data, start, steps):
            step, state = done.step, done.state
            bar.update()
            due_log = step % config.log_every == 0 or step == steps
            due_save = step % config.checkpoint_every == 0 or step == steps
            due_report = step % config.picture_every == 0 or step == steps
            if due_log or due_save or due_report:
                check_finite(done)
            if due_log:
                seconds = time.monotonic() - clock
                scalars = {
                    **{name: float(value) for name, value in done.metrics.items()},
                    "learning_rate": float(schedule(step - 1)),
                    "images_per_second": (step - clock_step) * config.batch_size / seconds,
                    "epoch": step / steps_per_epoch,
                }
                log.write(step, scalars)
                bar.set_postfix_str(describe_progress(scalars))
            if due_save:
                checkpoints.save(step, state, data, metadata)
            if due_report:
                report(step, state.params)
            if due_log or due_save or due_report:
                clock, clock_step = time.monotonic(), step
    checkpoints.close()
    log.close()
    files = {
        "checkpoint": checkpoints.path(int(state.step)),
        "TensorBoard log": log.tensorboard,
        "metrics": log.path,
        "reconstruction picture": picture,
    }
    return Outcome(state, files)


def run_steps(
    train_step: TrainStep, state: TrainState, data: grain.DatasetIterator, start: int, stop: int
) -> Iterator[Done]:
    """The steps after `start` up to `stop`, each yielded as soon as it is dispatched.

    The step before is checked while the new one is computed, so that the device never waits; who
    keeps a state must check its own step first.

    Args:
      train_step: as made by `map_over_devices`.
      state: after `start` steps; its buffers are donated.
      data: delivers the batches.
      start: steps done.
      stop: steps to have done at the end.

    Raises:
      DivergedError: a loss or a gradient is not finite.
    """
    previous: Done | None = None
    for step in range(start + 1, stop + 1):
        batch = next(data)
        state, metrics, errors = train_step(state, per_device(batch["backscatter"]))
        check_finite(previous)
        previous = Done(step, state, batch["id"], metrics, errors)
        yield previous


def per_device(batch: np.ndarray) -> np.ndarray:
    """(process batch, …) -> (local device, per-device batch, …)."""
    return batch.reshape(jax.local_device_count(), -1, *batch.shape[1:])


def describe_progress(scalars: dict[str, float]) -> str:
    """Loss and throughput for the progress bar."""
    return f"loss {scalars['loss']:.4f}, {scalars['images_per_second']:.1f} images/s"


def check_finite(done: Done | None) -> None:
    """Stops a run whose loss or gradient is not finite.

    Raises:
      DivergedError: names the step and the patches.
    """
    if done is None:
        return
    values = {name: float(value) for name, value in done.metrics.items()}
    if all(np.isfinite(value) for value in values.values()):
        return
    bad = ~np.isfinite(np.asarray(done.patch_errors).reshape(-1))
    ids = [name.decode() for name in (done.ids[bad] if bad.any() else done.ids)]
    named = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    seen = ", ".join(f"{name} {value}" for name, value in values.items())
    raise DivergedError(
        f"step {done.step}: found {seen}, expected finite numbers; patches of the batch with a "
        f"non-finite error: {named}: look at these patches, or lower "
        "--config.optimizer.base_learning_rate; the last checkpoint is sound"
    )


def describe_run(config: ConfigDict, patches: Patches, objective: Objective) -> dict[str, Any]:
    """The metadata of a checkpoint: what a stranger needs to use the encoder."""
    return {
        "variant": config.model.variant,
        "architecture": asdict(objective.model.size),
        "bands": list(patches.bands),
        "unit": patches.unit,
        "statistics": {
            "mean": list(patches.mean),
            "std": list(patches.std),
            "of": patches.statistics_of,
        },
        "weighting": asdict(objective.preprocessing.weighting),
        "dataset": patches.name,
        "config": json.loads(config.to_json_best_effort()),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
