"""Pretraining: `train(config, workdir)`, from a built dataset to checkpoints, logs and pictures."""

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

from sar_mixmae_jax import configuration, summary
from sar_mixmae_jax.checkpoint import Checkpoints
from sar_mixmae_jax.data import Patches, batches, open_patches
from sar_mixmae_jax.devices import batch_sharding, feed, replicate
from sar_mixmae_jax.inspection import Inspector
from sar_mixmae_jax.journal import Journal
from sar_mixmae_jax.loop import check_finite, run_steps
from sar_mixmae_jax.objective import Objective
from sar_mixmae_jax.optimizer import peak_learning_rate
from sar_mixmae_jax.order import Order
from sar_mixmae_jax.preprocess import preprocess
from sar_mixmae_jax.processes import Agreement, is_first
from sar_mixmae_jax.provenance import describe_start, versions
from sar_mixmae_jax.restore import resume
from sar_mixmae_jax.same_run import OTHER_DRAWS
from sar_mixmae_jax.step import TrainState, compiled, init_state, map_over_devices
from sar_mixmae_jax.stopwatch import Stopwatch
from sar_mixmae_jax.workdir import RunRecord, claim

TINY_RATE = 2e-5
"""Below this peak rate a short run learns nothing."""


class Outcome(NamedTuple):
    """What a run leaves behind.

    Attributes:
      state: after the last step.
      dataset: what it was trained on, with the caveats of its results.
      files: what was made, by what it is.
      finished: False if it was asked to stop before its last step.
    """

    state: TrainState
    dataset: str
    files: dict[str, Path]
    finished: bool


def train(config: ConfigDict, workdir: Path, stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Pretrains, or goes on where the run in `workdir` was.

    With several processes each of them calls this; the first one writes logs and pictures.

    Args:
      config: as made by `configs/pretrain.py`.
      workdir: for everything the run writes; the same folder for all processes.
      stop: asked after every step; True, in any process, saves and ends the run early.

    Raises:
      InputError: the configuration, the dataset, the workdir or all checkpoints cannot be used.
      DivergedError: the loss or its gradient is not finite; the last checkpoint stays.
    """
    # ---- what cannot be used is refused before anything is written
    configuration.check(config, jax.device_count())
    patches = open_patches(config.dataset, config.data_dir, config.split, config.bands)
    order = Order(len(patches.source), config.batch_size, config.seed)
    objective = configuration.objective(config, patches)
    batch = batch_shape(config, objective, patches)
    warn_of_tiny_rate(config)
    description = describe(config, patches, objective)

    with ExitStack() as stack:
        if is_first():
            stack.enter_context(claim(workdir))
        record = RunRecord(workdir, description)

        # ---- start: resume, else scratch
        optimizer = configuration.optimizer(config, configuration.schedule(config, order))
        scratch = partial(init_state, objective.model, optimizer, jax.random.key(config.seed))
        saved = resume(workdir, jax.eval_shape(scratch), description, record.saved)
        state = replicate(saved.state if saved else scratch())
        start = saved.step if saved else 0
        if saved:
            order = Order(**saved.metadata["order"]).go_on(start, config.batch_size)
            warn_of_other_shares(saved.metadata["shares"], shares(config))
        schedule = configuration.schedule(config, order)
        optimizer = configuration.optimizer(config, schedule)
        steps = config.max_steps or order.steps(config.epochs)

        # ---- what is written along the way
        inspector = Inspector(
            objective,
            patches,
            count=config.diagnostic_patches,
            drawn=config.picture_patches,
            seed=config.seed,
        )
        title = f"{config.model.variant} on {patches.title}"
        journal = stack.enter_context(closing(Journal(workdir, inspector, title, start, steps)))
        checkpoints = stack.enter_context(closing(Checkpoints(workdir, configuration.keep(config))))
        metadata = {
            **description,
            "order": asdict(order),
            "shares": shares(config),
            "versions": versions(),
        }

        def note_saved(*, wait: bool = False) -> None:
            written = checkpoints.written(wait=wait) if is_first() else None
            if written:
                record.note_saved(written.step)
                journal.write(written.step, written.seconds)

        if is_first():
            print(f"standardised with {patches.statistics}")
        if start < steps:
            if is_first():
                record.add_start(describe_start(start))
                if start:
                    print(f"going on after step {start}")
            inspector.warn(journal.look(start, state.params, draw=start == 0))
            mapped = map_over_devices(objective, optimizer, config.accumulate)
            train_step = compiled(mapped, state, batch)
            journal.advance(compiled=True)

        # ---- loop: log, then look, then save, so that a checkpoint is never ahead of the log
        data = feed(batches(patches.source, order, start, steps, share=process_share()))
        wants_to_stop, watch, logged = Agreement(), Stopwatch(), start
        for done in run_steps(train_step, state, data, start, watch) if start < steps else ():
            step, state = done.step, done.state
            journal.advance()
            note_saved()
            last = step == steps or wants_to_stop(stop())
            due_log, due_picture, due_save = (
                last or step % every == 0
                for every in (config.log_every, config.picture_every, config.checkpoint_every)
            )
            if not (due_log or due_picture or due_save):
                continue
            with watch.part("compute"):
                check_finite(done)
            metrics = {name: float(value) for name, value in done.metrics.items()}
            if due_log:
                seconds, parts = watch.lap()
                journal.write_progress(
                    step,
                    {
                        **metrics,
                        "learning_rate": float(schedule(step - 1)),
                        "images_per_second": config.batch_size * (step - logged) / seconds,
                        "epoch": order.progress(step),
                        **{f"seconds/{part}": parts[part] / (step - logged) for part in parts},
                    },
                )
                logged = step
            if due_picture or (due_save and config.keep_best):
                with watch.part("look"):
                    metrics |= journal.look(step, state.params, draw=due_picture)
            if due_save:
                with watch.part("save"):
                    note_saved(wait=True)
                    checkpoints.save(step, state, metadata, metrics)
            if last:
                break
        note_saved(wait=True)

    files = {
        "checkpoint": checkpoints.path(int(state.step)),
        "TensorBoard log": workdir / "tensorboard",
        "metrics": workdir / "metrics.jsonl",
        "reconstruction picture": journal.picture,
        "record of the run": workdir / "run.json",
    }
    if is_first():
        files["summary"] = summary.write(workdir)
    return Outcome(state, patches.title, files, int(state.step) >= steps)


def shares(config: ConfigDict) -> int:
    """Parts of a batch that have masks and partners of their own."""
    return jax.device_count() * config.accumulate


def process_share() -> tuple[int, int]:
    """(i, n): which part of every batch this process reads, of how many."""
    return jax.process_index(), jax.process_count()


def batch_shape(config: ConfigDict, objective: Objective, patches: Patches) -> jax.ShapeDtypeStruct:
    """The batch of all devices; reads a record and checks that it can be brought to the model.

    Raises:
      InputError: it cannot be read, or is of a size that does not fit.
    """
    image, devices = patches.source[0]["backscatter"], jax.device_count()
    shape = (devices, config.batch_size // devices, *image.shape)
    prepare = partial(preprocess, settings=objective.preprocessing)
    jax.eval_shape(prepare, jax.ShapeDtypeStruct(shape[1:], image.dtype), jax.random.key(0))
    return jax.ShapeDtypeStruct(shape, image.dtype, sharding=batch_sharding())


def warn_of_tiny_rate(config: ConfigDict) -> None:
    """Warns where the published rate and a small batch make a rate that learns nothing."""
    peak = peak_learning_rate(config.optimizer.base_learning_rate, config.batch_size)
    if peak < TINY_RATE:
        logging.warning(
            "the peak learning rate is %.1e: the published base rate of 1.5e-4 is for batches of "
            "256, and this batch is %d; raise --config.optimizer.base_learning_rate",
            peak,
            config.batch_size,
        )


def warn_of_other_shares(before: int, now: int) -> None:
    """Warns where devices times accumulated shares are not what they were."""
    if before != now:
        logging.warning(
            "the batch was cut into %d share(s) and is now into %d (devices times accumulate): "
            "records go on in the same order; %s",
            before,
            now,
            OTHER_DRAWS,
        )


def describe(config: ConfigDict, patches: Patches, objective: Objective) -> dict[str, Any]:
    """What is trained on what: all that a stranger needs to use the encoder, as JSON has it."""
    return json.loads(
        json.dumps(
            {
                "config": json.loads(config.to_json_best_effort()),
                "dataset": patches.describe(),
                "model": {
                    "variant": config.model.variant,
                    "architecture": asdict(objective.model.size),
                    "weighting": asdict(objective.preprocessing.weighting),
                },
            }
        )
    )
