"""The training loop: update, log, evaluate, save.

The loop is task-agnostic: a `RunSetup` says what is trained. Metrics of a step are read while the
next one is computed, so that the device never waits for the host.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.training.checkpoint import (
    CheckpointManager,
    checkpoint_dir,
    remove_unfinished,
    select_step,
)
from sar_mixmae_jax.training.distributed import (
    AllReduceFlag,
    broadcast_check,
    is_primary_process,
    wait_for_processes,
)
from sar_mixmae_jax.training.kernel_choice import compiler_options, kernel_names
from sar_mixmae_jax.training.metric_logger import (
    METRICS,
    TENSORBOARD,
    MetricLogger,
    StepTimer,
    last_saved,
    warn_if_damaged,
)
from sar_mixmae_jax.training.restore import restore_for_resume
from sar_mixmae_jax.training.setup import RunSetup, open_feed, warn_of_zero_learning_rate
from sar_mixmae_jax.training.sharding import (
    local_shard,
    replicate,
)
from sar_mixmae_jax.training.train_step import (
    TrainState,
    TrainStep,
    compile_train_step,
    map_over_devices,
)
from sar_mixmae_jax.training.workdir import (
    RECORD,
    RNG_CHANGED_WARNING,
    RunRecord,
    check_shared_workdir,
    lock_workdir,
    versions,
)
from sar_mixmae_jax.utils.errors import DivergedError, InputError
from sar_mixmae_jax.utils.files import find_mirror


class RunResult(NamedTuple):
    """Result of a run.

    Attributes:
      title: model and dataset, with the caveats of the results.
      state: after the last step.
      files: what was written, by what it is.
      finished: False if the run was stopped before its last step.
    """

    title: str
    state: TrainState
    files: dict[str, Path]
    finished: bool


def run_training(setup: RunSetup, workdir: Path, stop: Callable[[], bool]) -> RunResult:
    """Train from scratch, or resume the run in `workdir`.

    With several processes each of them calls this; the primary one writes logs and pictures.

    Args:
      setup: what is trained.
      workdir: for everything the run writes; the same folder for all processes.
      stop: called after every step; True, in any process, saves and ends the run early.

    Raises:
      InputError: the workdir or all of its checkpoints cannot be used.
      DivergedError: the loss or its gradient is not finite; the last checkpoint is kept.
    """
    with ExitStack() as stack:
        if is_primary_process():
            stack.enter_context(lock_workdir(workdir, setup.config.upload_every))
        if find_mirror(workdir.absolute()):
            wait_for_processes()  # while the primary one waits for a lease to expire
        broadcast_check(setup.description.to_json())
        check_shared_workdir(workdir)
        record = RunRecord(workdir, setup.description)
        if is_primary_process():
            remove_unfinished(workdir)
        setup, state, start = restore_or_init(setup, workdir, record)
        done = start >= setup.total_steps
        if is_primary_process():
            warn_if_damaged(workdir / METRICS, start)
            if not done or record.is_new:
                record.note_start(start, kernel_names(setup.kernels))
            if done and not record.is_new:
                print(f"the run is complete, with {start} steps: nothing is trained")
            elif start and not done:
                print(f"resuming after step {start}")
        if not done:
            logger = stack.enter_context(closing(MetricLogger(workdir, setup, start)))
            manager = stack.enter_context(CheckpointManager(workdir, setup.retention))
            warn_of_zero_learning_rate(setup)
            saver = CheckpointSaver(setup, manager, logger, record)
            state = train_loop(setup, state, start, stop, logger, saver)
    last = int(state.step)
    picture = workdir / setup.evaluator.picture
    files = {
        "checkpoint": checkpoint_dir(workdir) / str(last),
        "TensorBoard log": workdir / TENSORBOARD,
        "metrics": workdir / METRICS,
        "record of the run": workdir / RECORD,
    }
    if setup.config.keep_best:
        try:
            files["best checkpoint"] = select_step(workdir, "best")
        except InputError as error:  # metadata of an earlier one are damaged
            logging.warning("%s", error)
    if picture.exists():
        files[f"{picture.stem} picture"] = picture
    return RunResult(setup.title, state, files, finished=last >= setup.total_steps)


def train_loop(
    setup: RunSetup,
    state: TrainState,
    start: int,
    stop: Callable[[], bool],
    logger: MetricLogger,
    saver: "CheckpointSaver",
) -> TrainState:
    """Train until the last step, or until `stop`; the last step is saved.

    The order is log, evaluate, save: a checkpoint is never ahead of the log.

    Args:
      setup: what is trained.
      state: after `start` steps, on the devices.
      start: steps done.
      stop: see `run_training`.
      logger: of metrics and pictures.
      saver: of checkpoints.
    """
    config, sampler, steps = setup.config, setup.sampler, setup.total_steps
    eval_every = setup.eval_every or sampler.steps_per_epoch
    save_every = config.checkpoint_every or sampler.steps_per_epoch
    if start == 0 and setup.eval_at_start:
        evaluation = setup.evaluator.evaluate(state.params)
        logger.write_evaluation(0, evaluation, draw=True)
        if is_primary_process():
            setup.evaluator.warn(evaluation.scalars)
    feed = open_feed(setup, start)
    if is_primary_process():
        print("compiling the step")
    train_step = compile_train_step(
        map_over_devices(
            setup.loss_fn, setup.optimizer, config.grad_accum_steps, feed.record_shapes
        ),
        state,
        feed.batch_shapes,
        compiler_options(setup.kernels),
    )
    preempted, timer, logged = AllReduceFlag(), StepTimer(), start
    for result in step_iterator(train_step, state, feed.batches, start, timer):
        step, state = result.step, result.state
        logger.advance()
        saver.note_finished()
        finished = step == steps
        last = finished or preempted(stop())
        planned_save = finished or step % save_every == 0
        save_due = last or planned_save
        log_due = save_due or step % config.log_every == 0
        eval_due = finished or step % eval_every == 0  # no final evaluation when preempted
        if not (log_due or eval_due):
            continue
        with timer.section("compute"):
            check_finite(result)
        metrics = {name: float(value) for name, value in result.metrics.items()}
        if log_due:
            logger.write_progress(step, metrics | progress_metrics(setup, step, logged, timer))
            logged = step
        if eval_due or (planned_save and config.keep_best):
            with timer.section("evaluate"):
                evaluation = setup.evaluator.evaluate(state.params)
                logger.write_evaluation(step, evaluation, draw=eval_due)
                metrics |= evaluation.scalars
        if save_due:
            with timer.section("save"):
                # A preempted step is no candidate for the best: a run without it would have none.
                saver.save(step, state, metrics if planned_save else {})
        if last:
            break
    saver.note_finished(wait=True)
    return state


def progress_metrics(setup: RunSetup, step: int, logged: int, timer: StepTimer) -> dict[str, float]:
    """Return rate, epoch and times of the steps since the last that was logged; reset the timer.

    Args:
      setup: what is trained.
      step: steps done.
      logged: steps done when the timer was reset before.
      timer: timer of the sections of the loop.
    """
    seconds, sections = timer.flush()
    images = setup.images_per_record * setup.config.batch_size * (step - logged)
    return {
        "learning_rate": float(setup.schedule(step - 1)),
        "images_per_second": images / seconds,
        "epoch": setup.sampler.progress(step),
        **{f"seconds/{name}": sections[name] / (step - logged) for name in sections},
    }


class StepResult(NamedTuple):
    """Result of a step that was dispatched; its arrays may still be computed.

    Attributes:
      step: number of the step, from 1.
      state: after it, until the next step takes the buffers.
      ids: ids of this process's records in its batch, device by device.
      metrics: "loss" and "gradient_norm".
      errors: (device, batch) error of every record.
    """

    step: int
    state: TrainState
    ids: np.ndarray
    metrics: dict[str, jax.Array]
    errors: jax.Array


def step_iterator(
    train_step: TrainStep,
    state: TrainState,
    data: Iterator[tuple[np.ndarray, Any]],
    start: int,
    timer: StepTimer,
) -> Iterator[StepResult]:
    """Yield the result of the step on every batch, as soon as it is dispatched.

    The previous step is checked while the new one is computed. A caller that keeps a state must
    check its own step first.

    Args:
      train_step: compiled, see `compile_train_step`.
      state: after `start` steps; its buffers are donated.
      data: (ids, batch on the devices), see `RecordFeed`.
      start: steps done.
      timer: of the sections "data" and "compute".

    Raises:
      DivergedError: a loss or a gradient is not finite.
    """
    previous: StepResult | None = None
    step = start
    while True:
        with timer.section("data"):
            batch = next(data, None)
        if batch is None:
            return
        step += 1
        with timer.section("compute"):
            state, metrics, errors = train_step(state, batch[1])
            if previous is not None:
                check_finite(previous)
        previous = StepResult(step, state, batch[0], metrics, errors)
        yield previous


def check_finite(result: StepResult) -> None:
    """Stop a run whose loss or gradient is not finite; every process does so at the same step.

    Raises:
      DivergedError: names the step and the patches of this process.
    """
    values = {name: float(value) for name, value in result.metrics.items()}
    if all(np.isfinite(value) for value in values.values()):
        return
    bad = ~np.isfinite(local_shard(result.errors).ravel())
    ids = [name.decode() for name in result.ids[bad]]
    if ids:
        patches = "patches of the batch with a non-finite error: " + ", ".join(ids[:8])
        patches += f" and {len(ids) - 8} more" if len(ids) > 8 else ""
    else:
        patches = "no patch here has a non-finite error of its own"
    metrics = ", ".join(f"{name} {value}" for name, value in values.items())
    raise DivergedError(
        f"step {result.step}: found {metrics}, expected finite numbers; {patches}: look at these "
        "patches, or lower --config.optimizer.base_learning_rate; nothing of this step is saved"
    )


class CheckpointSaver:
    """Asynchronous saving of checkpoints; log and `run.json` note when one is on disk."""

    def __init__(
        self, setup: RunSetup, manager: CheckpointManager, logger: MetricLogger, record: RunRecord
    ) -> None:
        """Collect the metadata that all checkpoints of this start share."""
        self._sampler = setup.sampler
        self._manager, self._logger, self._record = manager, logger, record
        self._metadata = {
            **setup.description.to_json(),
            "seen": setup.train_ids,
            "order": dataclasses.asdict(setup.sampler),
            "shares": setup.num_microbatches,
            "versions": versions(),
        }

    def save(self, step: int, state: TrainState, metrics: dict[str, float]) -> None:
        """Start to save a checkpoint, after the one that is still written."""
        self.note_finished(wait=True)
        position = {"next_records": next_records(self._sampler, step)}
        self._manager.save(step, state, self._metadata | position, metrics)

    def note_finished(self, *, wait: bool = False) -> None:
        """Note the checkpoint that was finished since the last call, if any."""
        saved = self._manager.written(wait=wait) if is_primary_process() else None
        if saved:
            self._record.note_saved(saved.step)
            self._logger.write(saved.step, saved.seconds)


def restore_or_init(
    setup: RunSetup, workdir: Path, record: RunRecord
) -> tuple[RunSetup, TrainState, int]:
    """Restore the newest valid checkpoint of the run, or build the state before the first step.

    Returns:
      The set-up with the order of the records from here on, the state on the devices, steps done.

    Raises:
      InputError: no checkpoint can be used, or the records would come in another order.
    """
    expected = jax.eval_shape(setup.init_state)
    newest = record.saved or last_saved(workdir / METRICS)
    checkpoint = restore_for_resume(workdir, expected, setup.description, newest)
    if checkpoint is None:
        return setup, replicate(setup.load_weights(setup.init_state())), 0
    step, metadata = checkpoint.step, checkpoint.metadata
    if metadata.num_microbatches != setup.num_microbatches:
        logging.warning(
            "the batch was cut into %d microbatch(es) and is now cut into %d (devices times "
            "grad_accum_steps): records are read in the same order; %s",
            metadata.num_microbatches,
            setup.num_microbatches,
            RNG_CHANGED_WARNING,
        )
    sampler = ShuffleSampler(**metadata.order or {})
    if metadata.next_records != next_records(sampler, step):
        raise InputError(
            f"the records after step {step} differ from those stored in checkpoint {step} (the "
            "order of records changed between versions): resume with sar-mixmae-jax "
            f"{metadata.versions.get('sar-mixmae-jax', 'of that version')}, which wrote it, or "
            "choose another --workdir"
        )
    sampler = sampler.go_on(step, setup.config.batch_size)
    return setup.with_sampler(sampler), replicate(checkpoint.state), step


def next_records(sampler: ShuffleSampler, step: int) -> tuple[int, ...]:
    """Return the first records of the next batch, which reveal a shuffle that has changed."""
    return tuple(sampler.batch(step)[:8].tolist())
