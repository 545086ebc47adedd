"""The training loop: one step after the other, the device never waiting for the host.

What a step returns is looked at while the next one is computed; a loss that is not finite stops the
loop and names the patches.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import Source, batches
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.run_report import page
from sar_mixmae_jax.training.callbacks import Evaluator, MetricLogger
from sar_mixmae_jax.training.checkpoint import CheckpointManager, checkpoint_dir, remove_unfinished
from sar_mixmae_jax.training.config import make_optimizer, make_retention_policy, make_schedule
from sar_mixmae_jax.training.distributed import (
    AllReduceFlag,
    broadcast_check,
    is_primary_process,
    process_shard,
)
from sar_mixmae_jax.training.metric_logger import (
    METRICS,
    TENSORBOARD,
    StepTimer,
    is_damaged,
    last_saved,
)
from sar_mixmae_jax.training.restore import restore_for_resume
from sar_mixmae_jax.training.sharding import (
    global_batch_shape,
    local_shard,
    prefetch_to_device,
    replicate,
)
from sar_mixmae_jax.training.train_step import (
    LossFn,
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
    comparable_settings,
    describe_start,
    lock_workdir,
    versions,
)
from sar_mixmae_jax.utils.errors import DivergedError, InputError, first_line


class StepResult(NamedTuple):
    """A step that was dispatched; its arrays may still be in the making.

    Attributes:
      step: its number, from 1.
      state: after it, until the next step takes the buffers.
      ids: of this process's records in its batch, device by device.
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
    data: Iterator[tuple[np.ndarray, dict[str, jax.Array]]],
    start: int,
    watch: StepTimer,
) -> Iterator[StepResult]:
    """The steps after `start`, one a batch, each yielded as soon as it is dispatched.

    The step before is checked while the new one is computed, so that the device never waits; who
    keeps a state must check its own step first.

    Args:
      train_step: as made by `map_over_devices`.
      state: after `start` steps; its buffers are donated.
      data: delivers (ids, batch on the devices), as made by `devices.feed`.
      start: steps done.
      watch: measures the parts "data" and "compute".

    Raises:
      DivergedError: a loss or a gradient is not finite.
    """
    previous: StepResult | None = None
    step = start
    while True:
        with watch.part("data"):
            batch = next(data, None)
        if batch is None:
            return
        step += 1
        with watch.part("compute"):
            state, metrics, errors = train_step(state, batch[1])
            check_finite(previous)
        previous = StepResult(step, state, batch[0], metrics, errors)
        yield previous


def check_finite(done: StepResult | None) -> None:
    """Stops a run whose loss or gradient is not finite; every process does so at the same step.

    Raises:
      DivergedError: names the step and the patches of this process.
    """
    if done is None:
        return
    values = {name: float(value) for name, value in done.metrics.items()}
    if all(np.isfinite(value) for value in values.values()):
        return
    bad = ~np.isfinite(local_shard(done.errors).ravel())
    names = [name.decode() for name in done.ids[bad]]
    if names:
        named = "patches of the batch with a non-finite error: " + ", ".join(names[:8])
        named += f" and {len(names) - 8} more" if len(names) > 8 else ""
    else:
        named = "no patch here has a non-finite error of its own"
    seen = ", ".join(f"{name} {value}" for name, value in values.items())
    raise DivergedError(
        f"step {done.step}: found {seen}, expected finite numbers; {named}: look at these patches, "
        "or lower --config.optimizer.base_learning_rate; nothing of this step is saved"
    )


@dataclasses.dataclass(frozen=True)
class TrainingJob:
    """What is trained, as far as a run must know it.

    Attributes:
      title: what on what.
      description: {"config", "dataset", "model"} as JSON has it; see `same_run`.
      source: the records.
      init: a state before the first step, for an optimizer.
      load: puts what was learnt before into it; not asked where a run goes on.
      share_loss: what is minimised, over a share of a batch.
      watcher: looks at the model from outside.
      look_every: steps between looks; None: an epoch.
      save_every: steps between checkpoints; None: an epoch.
      look_first: whether to look before the first step.
      seen: the ids that the model has seen, pretraining included; kept in every checkpoint.
      images: in a record: 2 where it is a pair of dates.
    """

    title: str
    description: dict[str, Any]
    source: Source
    init: Callable[[optax.GradientTransformation], TrainState]
    load: Callable[[TrainState], TrainState]
    share_loss: LossFn
    watcher: Evaluator
    look_every: int | None
    save_every: int | None
    look_first: bool
    seen: str
    images: int = 1


class InitialState(NamedTuple):
    """Where a run begins or goes on.

    Attributes:
      state: on the devices.
      order: of the records, from here on.
      step: steps done.
    """

    state: TrainState
    order: ShuffleSampler
    step: int


class RunResult(NamedTuple):
    """What a run leaves behind.

    Attributes:
      title: what was trained on what, with the caveats of its results.
      state: after the last step.
      files: what was made, by what it is.
      finished: False if it was asked to stop before its last step.
    """

    title: str
    state: TrainState
    files: dict[str, Path]
    finished: bool


def run_training(
    job: TrainingJob, config: ConfigDict, workdir: Path, stop: Callable[[], bool]
) -> RunResult:
    """Trains from scratch, or goes on where the run in `workdir` was.

    With several processes each of them calls this; the first one writes logs and pictures.

    Args:
      job: what is trained.
      config: as made by `configs/pretrain.py`.
      workdir: for everything the run writes; the same folder for all processes.
      stop: asked after every step; True, in any process, saves and ends the run early.

    Raises:
      InputError: the workdir or all of its checkpoints cannot be used.
      DivergedError: the loss or its gradient is not finite; the last checkpoint stays.
    """
    with ExitStack() as stack:
        if is_primary_process():
            stack.enter_context(lock_workdir(workdir))
        broadcast_check(job.description)
        check_shared_workdir(workdir)
        record = RunRecord(workdir, job.description)
        if is_primary_process():
            remove_unfinished(workdir)
        start = restore_or_init(job, config, workdir, record)
        if is_primary_process():
            warn_of_damaged_log(workdir / METRICS, start.step)
        steps = config.total_steps or start.order.steps(config.epochs)
        if is_primary_process() and (start.step < steps or record.is_new):
            record.add_start(
                describe_start(start.step) | {"settings": comparable_settings(job.description)}
            )
        state = start.state
        if start.step < steps:
            if is_primary_process() and start.step:
                print(f"going on after step {start.step}")
            journal = stack.enter_context(
                closing(MetricLogger(workdir, job.watcher, job.title, start.step, steps))
            )
            checkpoints = stack.enter_context(
                CheckpointManager(workdir, make_retention_policy(config))
            )
            state = train_loop(job, config, start, steps, stop, journal, checkpoints, record)
    last = int(state.step)
    files = {
        "checkpoint": checkpoint_dir(workdir) / str(last),
        "TensorBoard log": workdir / TENSORBOARD,
        "metrics": workdir / METRICS,
        f"{Path(job.watcher.picture).stem} picture": workdir / job.watcher.picture,
        "record of the run": workdir / RECORD,
    }
    if is_primary_process():
        files["summary"] = page.write_page(workdir)
    return RunResult(job.title, state, files, finished=last >= steps)


def restore_or_init(
    job: TrainingJob, config: ConfigDict, workdir: Path, record: RunRecord
) -> InitialState:
    """The newest sound checkpoint of the run, or a state before the first step."""
    order = ShuffleSampler(len(job.source), config.batch_size, config.seed)
    optimizer = make_optimizer(config, make_schedule(config, order))
    like = jax.eval_shape(lambda: job.init(optimizer))
    known = record.saved or last_saved(workdir / METRICS)
    saved = restore_for_resume(workdir, like, job.description, known)
    if saved is None:
        return InitialState(replicate(job.load(job.init(optimizer))), order, 0)
    if saved.metadata["shares"] != num_microbatches(config):
        logging.warning(
            "the batch was cut into %d share(s) and is now into %d (devices times accumulate): "
            "records go on in the same order; %s",
            saved.metadata["shares"],
            num_microbatches(config),
            RNG_CHANGED_WARNING,
        )
    order = ShuffleSampler(**saved.metadata["order"])
    if saved.metadata["next_records"] != next_records(order, saved.step):
        raise InputError(
            f"the records after step {saved.step} would be others than before: install the grain "
            f"of that checkpoint, {saved.metadata['versions'].get('grain')}"
        )
    order = order.go_on(saved.step, config.batch_size)
    return InitialState(replicate(saved.state), order, saved.step)


def next_records(order: ShuffleSampler, step: int) -> list[int]:
    """Some of the records of the next batch, to notice a shuffle that is not what it was."""
    return order.batch(step)[:8].tolist()


def warn_of_damaged_log(path: Path, step: int) -> None:
    """Warns of lines that are lost.

    Raises:
      InputError: the log cannot be read.
    """
    try:
        if is_damaged(path, step):
            logging.warning("%s is damaged or gone, and lines of it are lost", path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({first_line(error)}): restore it, or move it away and start "
            "again"
        ) from error


def num_microbatches(config: ConfigDict) -> int:
    """Parts of a batch that have masks and partners of their own."""
    return jax.device_count() * config.grad_accum_steps


def train_loop(
    job: TrainingJob,
    config: ConfigDict,
    start: InitialState,
    steps: int,
    stop: Callable[[], bool],
    journal: MetricLogger,
    checkpoints: CheckpointManager,
    record: RunRecord,
) -> TrainState:
    """The steps that are left: after each one what is due, and the last one saved.

    Log, then look, then save: so a checkpoint is never ahead of the log.
    """
    order = start.order
    schedule = make_schedule(config, order)
    if is_primary_process() and float(schedule(steps - 1)) == 0 and steps > 1:
        logging.warning(
            "the learning rate is 0 from epoch %g on, and %g are trained: a longer schedule is "
            "--config.schedule_epochs",
            config.schedule_epochs or order.progress(steps),
            order.progress(steps),
        )
    if start.step == 0 and job.look_first:
        seen = journal.look(0, start.state.params, draw=True)
        if is_primary_process():
            job.watcher.warn(seen)
    if is_primary_process():
        print("compiling the step")
    optimizer = make_optimizer(config, schedule)
    mapped = map_over_devices(job.share_loss, optimizer, config.grad_accum_steps)
    train_step = compile_train_step(
        mapped, start.state, global_batch_shape(job.source[0], config.batch_size)
    )
    look_every = job.look_every or order.steps_per_epoch
    save_every = job.save_every or order.steps_per_epoch
    metadata = {
        **job.description,
        "seen": job.seen,
        "order": dataclasses.asdict(order),
        "shares": num_microbatches(config),
        "versions": versions(),
    }

    def note_saved(*, wait: bool) -> None:
        written = checkpoints.written(wait=wait) if is_primary_process() else None
        if written:
            record.note_saved(written.step)
            journal.write(written.step, written.seconds)

    state, logged = start.state, start.step
    data = prefetch_to_device(batches(job.source, order, start.step, steps, process_shard()))
    wants_to_stop, watch = AllReduceFlag(), StepTimer()
    for done in step_iterator(train_step, state, data, start.step, watch):
        step, state = done.step, done.state
        journal.advance()
        note_saved(wait=False)
        finished = step == steps
        last = finished or wants_to_stop(stop())
        due_save = last or step % save_every == 0
        due_log = due_save or step % config.log_every == 0  # so that a lost log is noticed
        due_look = finished or step % look_every == 0  # who is told to stop hurries
        if not (due_log or due_look):
            continue
        with watch.part("compute"):
            check_finite(done)
        metrics = {name: float(value) for name, value in done.metrics.items()}
        if due_log:
            seconds, parts = watch.lap()
            progress = {
                "learning_rate": float(schedule(step - 1)),
                "images_per_second": job.images * config.batch_size * (step - logged) / seconds,
                "epoch": order.progress(step),
                **{f"seconds/{part}": parts[part] / (step - logged) for part in parts},
            }
            journal.write_progress(step, metrics | progress)
            logged = step
        if due_look or (due_save and config.keep_best):
            with watch.part("look"):
                metrics |= journal.look(step, state.params, draw=due_look)
        if due_save:
            with watch.part("save"):
                note_saved(wait=True)
                position = {"next_records": next_records(order, step)}
                checkpoints.save(step, state, metadata | position, metrics)
        if last:
            break
    note_saved(wait=True)
    return state
