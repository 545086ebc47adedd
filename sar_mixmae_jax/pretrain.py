"""Pretraining: `train(config, workdir)`, from a built dataset to checkpoints, logs and pictures."""

import importlib.metadata
import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax import configuration
from sar_mixmae_jax.checkpoint import Checkpoints
from sar_mixmae_jax.data import Patches, batches, open_patches
from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.inspection import Inspector, Look
from sar_mixmae_jax.logs import Clock, MetricsLog, progress_bar
from sar_mixmae_jax.loop import check_finite, run_steps
from sar_mixmae_jax.objective import Objective
from sar_mixmae_jax.optimizer import adamw, learning_rate, peak_learning_rate
from sar_mixmae_jax.preprocess import preprocess
from sar_mixmae_jax.step import (
    TrainState,
    init_state,
    map_over_devices,
    replicate,
)
from sar_mixmae_jax.workdir import claim

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


TINY_RATE = 2e-5
"""Below this peak rate a short run learns nothing."""


class Outcome(NamedTuple):
    """What a run leaves behind.

    Attributes:
      state: after the last step.
      dataset: what it was trained on, with the caveats of its results.
      files: what was made, by what it is.
    """

    state: TrainState
    dataset: str
    files: dict[str, Path]


def train(config: ConfigDict, workdir: Path, stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Pretrains, or goes on where the run in `workdir` was.

    Args:
      config: as made by `configs/pretrain.py`.
      workdir: for everything the run writes.
      stop: asked after every step; True saves and ends the run early.

    Raises:
      InputError: the configuration, the dataset or the workdir cannot be used.
      DivergedError: the loss or its gradient is not finite; the last checkpoint stays.
    """
    # ---- what cannot be used is refused before anything is read or written
    if jax.process_count() > 1:
        raise InputError(
            f"found {jax.process_count()} processes, expected one: a run uses all devices of one "
            "process, and cannot save from several yet"
        )
    configuration.check(config, jax.device_count())

    # ---- data
    patches = open_patches(config.dataset, config.data_dir, config.split, config.bands)
    data = batches(patches.source, batch_size=config.batch_size, seed=config.seed)
    steps_per_epoch = len(patches.source) // config.batch_size
    steps = config.max_steps or max(1, round(config.epochs * steps_per_epoch))

    # ---- objective, optimizer, step
    objective = configuration.objective(config, patches)
    check_fit(objective, patches)
    peak = peak_learning_rate(config.optimizer.base_learning_rate, config.batch_size)
    if peak < TINY_RATE:
        logging.warning(
            "the peak learning rate is %.1e: the published base rate of 1.5e-4 is for batches of "
            "256, and this batch is %d; raise --config.optimizer.base_learning_rate",
            peak,
            config.batch_size,
        )
    schedule = learning_rate(
        peak=peak,
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
    with ExitStack() as stack:
        stack.enter_context(claim(config, workdir))
        state = replicate(init_state(objective.model, optimizer, jax.random.key(config.seed)))
        checkpoints = stack.enter_context(
            closing(Checkpoints(workdir, keep=config.keep_checkpoints))
        )
        if checkpoints.latest_step() is not None:
            state = checkpoints.restore(state, data)
        start = int(state.step)
        metadata = describe_run(config, patches, objective)

        # ---- what is written along the way
        log = stack.enter_context(closing(MetricsLog(workdir, start or -1)))
        bar = stack.enter_context(progress_bar(min(start, steps), steps))
        picture = workdir / "reconstruction.png"
        inspector = Inspector(
            objective,
            patches,
            count=config.diagnostic_patches,
            drawn=config.picture_patches,
            seed=config.seed,
        )

        def report(step: int, look: Look) -> None:
            title = f"{config.model.variant} on {patches.title}, step {step}"
            explained = (
                f"{100 * look.scalars['explained']:.1f} % of the weighted variance explained"
            )
            inspector.draw(look.panels, picture, f"{title}: {explained}")
            log.write(step, look.scalars)
            log.picture(step, "reconstruction", picture)

        print(f"standardised with {patches.statistics}")
        if 0 < start < steps:
            print(f"going on after step {start}")
        if start < steps:
            look = inspector.look(state.params)
            inspector.warn(look.scalars)
            if start == 0:
                report(0, look)

        bar.set_postfix_str("compiling")
        # ---- loop: log, then look, then save, so that a checkpoint is never ahead of the log
        clock = Clock(start)
        for done in run_steps(train_step, state, data, start, steps):
            step, state = done.step, done.state
            if step == start + 1:
                bar.unpause()  # the time left is estimated without the compilation
            bar.update()
            last = step == steps or stop()
            due_log, due_report, due_save = (
                last or step % every == 0
                for every in (config.log_every, config.picture_every, config.checkpoint_every)
            )
            if not (due_log or due_report or due_save):
                continue
            check_finite(done)
            if due_log:
                scalars = {
                    **{name: float(value) for name, value in done.metrics.items()},
                    "learning_rate": float(schedule(step - 1)),
                    "images_per_second": config.batch_size * clock.steps_per_second(step),
                    "epoch": step / steps_per_epoch,
                }
                log.write(step, scalars)
                bar.set_postfix_str(
                    f"loss {scalars['loss']:.4f}, {scalars['images_per_second']:.1f} images/s"
                )
            if due_report:
                report(step, inspector.look(state.params))
            if due_save:
                checkpoints.save(step, state, data, metadata)
            clock = Clock(step)
            if last:
                break

    files = {
        "checkpoint": checkpoints.path(int(state.step)),
        "TensorBoard log": log.tensorboard,
        "metrics": log.path,
        "reconstruction picture": picture,
    }
    return Outcome(state, patches.title, files)


def check_fit(objective: Objective, patches: Patches) -> None:
    """Reads a record and checks that it can be brought to the model's input.

    Raises:
      InputError: it cannot be read, or is of a size that does not fit.
    """
    image = patches.source[0]["backscatter"]
    batch = jax.ShapeDtypeStruct((2, *image.shape), image.dtype)
    prepare = partial(preprocess, settings=objective.preprocessing)
    jax.eval_shape(prepare, batch, jax.random.key(0))


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
        "caveats": list(patches.caveats),
        "config": json.loads(config.to_json_best_effort()),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
