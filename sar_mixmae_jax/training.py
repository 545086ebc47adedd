"""How a run goes, whatever is trained: resume or begin, then step, log, look, save, sum up."""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax import configuration, summary
from sar_mixmae_jax.checkpoint import Checkpoints, clear_unfinished, folder
from sar_mixmae_jax.data import Source, batches
from sar_mixmae_jax.devices import batch_of_all, feed, replicate
from sar_mixmae_jax.errors import InputError, first_line
from sar_mixmae_jax.journal import Journal, Watcher
from sar_mixmae_jax.logs import METRICS, TENSORBOARD, is_damaged, last_saved
from sar_mixmae_jax.loop import check_finite, run_steps
from sar_mixmae_jax.order import Order
from sar_mixmae_jax.processes import Agreement, agree_on, is_first, share_of_batch
from sar_mixmae_jax.provenance import describe_start, versions
from sar_mixmae_jax.restore import resume
from sar_mixmae_jax.same_run import OTHER_DRAWS, settings
from sar_mixmae_jax.step import ShareLoss, TrainState, compiled, map_over_devices
from sar_mixmae_jax.stopwatch import Stopwatch
from sar_mixmae_jax.workdir import RECORD, RunRecord, check_shared, claim


@dataclasses.dataclass(frozen=True)
class Job:
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
    share_loss: ShareLoss
    watcher: Watcher
    look_every: int | None
    save_every: int | None
    look_first: bool
    seen: str
    images: int = 1


class Start(NamedTuple):
    """Where a run begins or goes on.

    Attributes:
      state: on the devices.
      order: of the records, from here on.
      step: steps done.
    """

    state: TrainState
    order: Order
    step: int


class Outcome(NamedTuple):
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


def run(job: Job, config: ConfigDict, workdir: Path, stop: Callable[[], bool]) -> Outcome:
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
        if is_first():
            stack.enter_context(claim(workdir))
        agree_on(job.description)
        check_shared(workdir)
        record = RunRecord(workdir, job.description)
        if is_first():
            clear_unfinished(workdir)
        start = resume_or_begin(job, config, workdir, record)
        if is_first():
            warn_of_damaged_log(workdir / METRICS, start.step)
        steps = config.max_steps or start.order.steps(config.epochs)
        if is_first() and (start.step < steps or record.is_new):
            record.add_start(describe_start(start.step) | {"settings": settings(job.description)})
        state = start.state
        if start.step < steps:
            if is_first() and start.step:
                print(f"going on after step {start.step}")
            journal = stack.enter_context(
                closing(Journal(workdir, job.watcher, job.title, start.step, steps))
            )
            checkpoints = stack.enter_context(Checkpoints(workdir, configuration.keep(config)))
            state = take_steps(job, config, start, steps, stop, journal, checkpoints, record)
    last = int(state.step)
    files = {
        "checkpoint": folder(workdir) / str(last),
        "TensorBoard log": workdir / TENSORBOARD,
        "metrics": workdir / METRICS,
        f"{Path(job.watcher.picture).stem} picture": workdir / job.watcher.picture,
        "record of the run": workdir / RECORD,
    }
    if is_first():
        files["summary"] = summary.write(workdir)
    return Outcome(job.title, state, files, finished=last >= steps)


def resume_or_begin(job: Job, config: ConfigDict, workdir: Path, record: RunRecord) -> Start:
    """The newest sound checkpoint of the run, or a state before the first step."""
    order = Order(len(job.source), config.batch_size, config.seed)
    optimizer = configuration.optimizer(config, configuration.schedule(config, order))
    like = jax.eval_shape(lambda: job.init(optimizer))
    known = record.saved or last_saved(workdir / METRICS)
    saved = resume(workdir, like, job.description, known)
    if saved is None:
        return Start(replicate(job.load(job.init(optimizer))), order, 0)
    if saved.metadata["shares"] != shares(config):
        logging.warning(
            "the batch was cut into %d share(s) and is now into %d (devices times accumulate): "
            "records go on in the same order; %s",
            saved.metadata["shares"],
            shares(config),
            OTHER_DRAWS,
        )
    order = Order(**saved.metadata["order"])
    if saved.metadata["next_records"] != next_records(order, saved.step):
        raise InputError(
            f"the records after step {saved.step} would be others than before: install the grain "
            f"of that checkpoint, {saved.metadata['versions'].get('grain')}"
        )
    order = order.go_on(saved.step, config.batch_size)
    return Start(replicate(saved.state), order, saved.step)


def next_records(order: Order, step: int) -> list[int]:
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


def shares(config: ConfigDict) -> int:
    """Parts of a batch that have masks and partners of their own."""
    return jax.device_count() * config.accumulate


def take_steps(
    job: Job,
    config: ConfigDict,
    start: Start,
    steps: int,
    stop: Callable[[], bool],
    journal: Journal,
    checkpoints: Checkpoints,
    record: RunRecord,
) -> TrainState:
    """The steps that are left: after each one what is due, and the last one saved.

    Log, then look, then save: so a checkpoint is never ahead of the log.
    """
    order = start.order
    schedule = configuration.schedule(config, order)
    if is_first() and float(schedule(steps - 1)) == 0 and steps > 1:
        logging.warning(
            "the learning rate is 0 from epoch %g on, and %g are trained: a longer schedule is "
            "--config.schedule_epochs",
            config.schedule_epochs or order.progress(steps),
            order.progress(steps),
        )
    if start.step == 0 and job.look_first:
        seen = journal.look(0, start.state.params, draw=True)
        if is_first():
            job.watcher.warn(seen)
    if is_first():
        print("compiling the step")
    optimizer = configuration.optimizer(config, schedule)
    mapped = map_over_devices(job.share_loss, optimizer, config.accumulate)
    train_step = compiled(mapped, start.state, batch_of_all(job.source[0], config.batch_size))
    look_every = job.look_every or order.steps_per_epoch
    save_every = job.save_every or order.steps_per_epoch
    metadata = {
        **job.description,
        "seen": job.seen,
        "order": dataclasses.asdict(order),
        "shares": shares(config),
        "versions": versions(),
    }

    def note_saved(*, wait: bool) -> None:
        written = checkpoints.written(wait=wait) if is_first() else None
        if written:
            record.note_saved(written.step)
            journal.write(written.step, written.seconds)

    state, logged = start.state, start.step
    data = feed(batches(job.source, order, start.step, steps, share_of_batch()))
    wants_to_stop, watch = Agreement(), Stopwatch()
    for done in run_steps(train_step, state, data, start.step, watch):
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
