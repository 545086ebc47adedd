"""Checkpoints: saved in the background, kept by a policy, chosen by name.

The folder of a step in `workdir/checkpoints` holds the train state and metadata as JSON, see
`run_description.CheckpointMetadata`. `restore` reads the arrays.
"""

import dataclasses
import hashlib
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from sar_mixmae_jax.training.distributed import is_primary_process
from sar_mixmae_jax.training.run_description import CheckpointMetadata
from sar_mixmae_jax.training.sharding import fetch_replicated
from sar_mixmae_jax.training.train_step import TrainState
from sar_mixmae_jax.utils import hashing
from sar_mixmae_jax.utils.errors import DivergedError, InputError, first_line
from sar_mixmae_jax.utils.files import find_mirror, read_json

METRIC_DIRECTION = {
    "loss": "min",
    "gradient_norm": "min",
    "explained_variance": "max",
    "validation/loss": "min",
}
"""Metrics that the best checkpoint can be chosen by, and the direction that is better."""

SCORE = "validation/"
"""Prefix of the name of a validation score, of which more is better."""


def metric_direction(metric: str) -> str | None:
    """Return the better direction of a metric, "min" or "max"; None for an unknown metric."""
    return METRIC_DIRECTION.get(metric, "max" if str(metric).startswith(SCORE) else None)


def best_metric_value(metrics: Mapping[str, float], metric: str) -> float:
    """Return the value of a metric with the sign for which more is better; NaN if undefined."""
    value = metrics.get(metric, math.nan)
    return -value if metric_direction(metric) == "min" else value


@dataclasses.dataclass(frozen=True)
class RetentionPolicy:
    """Checkpoints that are kept; the others are removed.

    Attributes:
      latest: number of the newest.
      every: keep those of multiples of this number of steps, or None.
      best: number of the best, or None.
      metric: by which they are the best, one with a `metric_direction`.
    """

    latest: int
    every: int | None = None
    best: int | None = None
    metric: str = "explained_variance"

    def __post_init__(self) -> None:
        if metric_direction(self.metric) is None:
            raise InputError(
                f"best_metric is {self.metric!r}: expected {', '.join(METRIC_DIRECTION)}, or "
                f"{SCORE}SCORE with a score of the task"
            )

    def policy(self, metrics: dict[int, dict[str, float]]) -> Any:
        """Return the preservation policy of Orbax.

        Args:
          metrics: metrics of every checkpoint by its step; read when it is decided, so it may grow.
        """
        managers = ocp.checkpoint_managers
        policies: list[Any] = [managers.LatestN(self.latest)]
        if self.every:
            policies.append(managers.EveryNSteps(self.every))
        if self.best:
            policies.append(_BestMetric(self.metric, self.best, metrics))
        return managers.AnyPreservationPolicy(policies)


@dataclasses.dataclass(frozen=True)
class _BestMetric:
    """Keep the best, by the metrics in the metadata, which have a checksum.

    Orbax's own policy reads them from files without checksum, and fails to open with one broken.
    """

    metric: str
    count: int
    metrics: dict[int, dict[str, float]]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: object) -> list[bool]:
        """Return for each checkpoint if it is among the best; of equals, the newer is better."""
        del context
        ranked = sorted(
            (value, info.step)
            for info in checkpoints
            if math.isfinite(
                value := best_metric_value(self.metrics.get(info.step, {}), self.metric)
            )
        )
        best = {step for _, step in ranked[-self.count :]}
        return [info.step in best for info in checkpoints]


class SavedCheckpoint(NamedTuple):
    """A checkpoint that is on the disk.

    Attributes:
      step: its step.
      seconds: by part: blocking the loop, and until it was on the disk.
    """

    step: int
    seconds: dict[str, float]


class CheckpointManager:
    """The checkpoints of one run, written in the background."""

    def __init__(self, workdir: Path, keep: RetentionPolicy) -> None:
        """Open the checkpoints of a working directory.

        Args:
          workdir: working directory of the run.
          keep: which checkpoints stay.
        """
        self._folder = checkpoint_dir(workdir)
        self._metrics = {int(path.name): _metrics(path) for path in checkpoint_steps(workdir)}
        self._pending: tuple[int, float, float] | None = None
        self._mirror = find_mirror(workdir.absolute())
        self._upload: Future[None] | None = None
        self._is_alone = self._mirror is not None and jax.process_count() > 1
        if self._is_alone and not is_primary_process():
            return  # processes do not share the mirror: the primary one writes for all
        options = ocp.CheckpointManagerOptions(preservation_policy=keep.policy(self._metrics))
        if self._is_alone:
            options.create = False
            options.multiprocessing_options = single_process_options()
        with self._writing():
            if is_primary_process():
                self._folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self._folder.absolute(), options=options)

    def save(
        self, step: int, state: TrainState, metadata: dict[str, Any], metrics: dict[str, float]
    ) -> None:
        """Start to write a checkpoint; the arrays may be donated once this returns.

        Args:
          step: number of steps done.
          state: after that step.
          metadata: JSON-able description of the run.
          metrics: metrics of this state, for choosing the best.

        Raises:
          InputError: this or an earlier checkpoint cannot be written.
        """
        start = time.monotonic()
        self._metrics[step] = metrics
        if self._is_alone and not is_primary_process():
            return
        local = fetch_replicated(state)
        arrays = array_checksums(local)
        if self._is_alone:
            state = jax.tree.map(np.asarray, local)
        elif jax.process_count() == 1:
            state = local  # else every array is cut into one slice a device
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state),
                    metadata=ocp.args.JsonSave(
                        hashing.add_checksum(
                            {**metadata, "step": step, "metrics": metrics, "arrays": arrays}
                        )
                    ),
                ),
                force=True,
            )
        self._pending = step, start, time.monotonic()

    def written(self, *, wait: bool = False) -> SavedCheckpoint | None:
        """Return the newest checkpoint once it is on the disk, and in the bucket of a run there.

        None is returned after that, and before.

        Args:
          wait: for the one that is being written.

        Raises:
          InputError: it could not be written.
          StorageError: it could not be written to the bucket.
        """
        if self._pending is None or (not wait and self._manager.is_saving_in_progress()):
            return None
        with self._writing():
            self._manager.wait_until_finished()
        if self._mirror and self._upload is None:
            self._upload = self._mirror.publish_checkpoint(self._folder / str(self._pending[0]))
        if self._upload and not wait and not self._upload.done():
            return None
        (step, start, returned), self._pending = self._pending, None
        if self._upload:
            upload, self._upload = self._upload, None
            upload.result()
        blocked, whole = returned - start, time.monotonic() - start
        return SavedCheckpoint(
            step, {"checkpoint_blocked_seconds": blocked, "checkpoint_seconds": whole}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Close, unless this process alone fails: saving is collective and would never end."""
        if error is None or isinstance(error, DivergedError) or jax.process_count() == 1:
            self.close()

    def close(self) -> None:
        """Wait until everything is written, and close."""
        if self._is_alone and not is_primary_process():
            return
        with self._writing():
            self._manager.wait_until_finished()
        if self._mirror:
            self.written(wait=True)
        self._manager.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn errors of writing into an `InputError`; those of the background are raised late."""
        try:
            yield
        except Exception as error:  # Orbax raises what the file system's library raises
            raise InputError(
                f"{self._folder}: a checkpoint cannot be written ({first_line(error)}): see that "
                "the disk has room and start again; the checkpoints before it are kept"
            ) from error


def single_process_options() -> ocp.options.MultiprocessingOptions:
    """Return options of Orbax for reading or writing without waiting for other processes."""
    return ocp.options.MultiprocessingOptions(
        primary_host=None,
        active_processes={jax.process_index()},
        barrier_sync_key_prefix=f"process_{jax.process_index()}",
    )


def array_checksums(tree: Any) -> dict[str, str]:
    """Return the SHA-256 of the bytes of every array in a tree, by its path in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    with ThreadPoolExecutor() as threads:  # hashing releases the interpreter's lock
        return dict(zip(names, threads.map(_digest, [leaf for _, leaf in leaves]), strict=True))


def _digest(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()  # type: ignore[arg-type]


def checkpoint_dir(workdir: Path) -> Path:
    """Return the folder of the checkpoints of a run."""
    return workdir / "checkpoints"


def checkpoint_steps(workdir: Path) -> list[Path]:
    """Return the folders of the finished checkpoints of a run, the newest last."""
    entries = checkpoint_dir(workdir).glob("*") if checkpoint_dir(workdir).is_dir() else ()
    return sorted(filter(is_checkpoint_path, entries), key=lambda path: int(path.name))


def is_checkpoint_path(path: Path) -> bool:
    """Return whether a path has the form of a finished checkpoint, RUN/checkpoints/STEP."""
    is_step = path.name.isascii() and path.name.isdigit()
    return is_step and path.parent.name == checkpoint_dir(path).name


REMOVAL_SECONDS = 0.5
"""Time in which a training that runs meanwhile removes the folder of a step."""


def select_step(workdir: Path, which: str) -> Path:
    """Return the folder of a checkpoint of a run.

    Args:
      workdir: working directory of the run.
      which: "latest", a step, or "best" by the run's own metric; the latest where none has it.

    Raises:
      InputError: there is no such checkpoint, or the best is unknown since metadata are damaged.
    """
    saved = checkpoint_steps(workdir)
    if not saved:
        raise InputError(f"{workdir} holds no checkpoint: expected the workdir of a run")
    if which == "latest" or (which == "best" and len(saved) == 1):
        return saved[-1]
    if which == "best":
        metric, ranked = None, []
        for path in reversed(saved):  # the metric is that of the newest
            try:
                metadata = read_metadata(path)
            except ValueError as error:
                time.sleep(REMOVAL_SECONDS)
                if not path.exists():
                    continue
                raise InputError(
                    f"{path}: {error}, so the best checkpoint is unknown: choose a step or "
                    "latest, or restore its metadata"
                ) from error
            metric = metric or str(metadata.config.get("best_metric"))
            if math.isfinite(value := best_metric_value(metadata.metrics, metric)):
                ranked.append((value, int(path.name)))
        return saved[-1] if not ranked else checkpoint_dir(workdir) / str(max(ranked)[1])
    if (path := checkpoint_dir(workdir) / which) in saved:
        return path
    raise InputError(
        f"{checkpoint_dir(workdir)} has no checkpoint {which!r}: expected best, latest, or one of "
        f"{', '.join(path.name for path in saved)}"
    )


def remove_unfinished(workdir: Path) -> None:
    """Remove unfinished checkpoints of killed processes, which Orbax would keep."""
    for unfinished in checkpoint_dir(workdir).glob("*.orbax-checkpoint-tmp*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def read_metadata(path: Path) -> CheckpointMetadata:
    """Read and verify the metadata of a checkpoint, of this version or an earlier one.

    Args:
      path: folder of its step.

    Raises:
      ValueError: they cannot be read, are damaged, or a field cannot be used.
    """
    try:
        content = read_json(path / "metadata" / "metadata")
        if not isinstance(content, dict):
            raise TypeError(f"found {type(content).__name__}, expected an object")
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"its metadata cannot be read ({first_line(error)})") from error
    return CheckpointMetadata.from_json(hashing.verify_checksum(content))


def _metrics(path: Path) -> dict[str, float]:
    try:
        return read_metadata(path).metrics
    except ValueError:  # damaged, so none of the best
        return {}
