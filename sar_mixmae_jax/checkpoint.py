"""Checkpoints: what a run needs to go on, and what a stranger needs to use the encoder.

A step's folder in `workdir/checkpoints` holds the train state, metadata as JSON (what was trained
on what, the order of the records, a checksum of every array), and metrics. `restore` reads them.
"""

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import orbax.checkpoint as ocp

from sar_mixmae_jax import checksums
from sar_mixmae_jax.devices import local
from sar_mixmae_jax.errors import DivergedError, InputError, first_line, look_up
from sar_mixmae_jax.step import TrainState

MODES = {"loss": "min", "gradient_norm": "min", "explained": "max"}
"""Metrics that the best checkpoint can be chosen by, and whether less or more of it is better."""


@dataclasses.dataclass(frozen=True)
class Keep:
    """Which checkpoints stay; the others are removed.

    Attributes:
      latest: so many of the newest.
      every: those of multiples of so many steps, or None.
      best: so many of the best, or None.
      metric: what "best" means, an entry of `MODES`.
    """

    latest: int
    every: int | None = None
    best: int | None = None
    metric: str = "explained"

    def __post_init__(self) -> None:
        look_up(MODES, self.metric, "metric")

    def options(self) -> ocp.CheckpointManagerOptions:
        """The same in Orbax's words."""
        managers = ocp.checkpoint_managers
        less_is_better = MODES[self.metric] == "min"
        worst = math.inf if less_is_better else -math.inf

        def metric(metrics: dict[str, float]) -> float:
            return metrics.get(self.metric, worst)

        policies: list[Any] = [managers.LatestN(self.latest)]
        if self.every:
            policies.append(managers.EveryNSteps(self.every))
        if self.best:
            policies.append(
                managers.BestN(get_metric_fn=metric, reverse=less_is_better, n=self.best)
            )
        return ocp.CheckpointManagerOptions(
            preservation_policy=managers.AnyPreservationPolicy(policies),
            best_fn=metric,  # without it metrics never reach the disk
            best_mode=MODES[self.metric],
        )


class Written(NamedTuple):
    """A checkpoint that is on the disk.

    Attributes:
      step: its step.
      seconds: by part: how long it blocked the loop, and how long until it was on the disk.
    """

    step: int
    seconds: dict[str, float]


class Checkpoints:
    """The checkpoints of one run, written in the background."""

    def __init__(self, workdir: Path, keep: Keep) -> None:
        """Opens the checkpoints of a working directory.

        Args:
          workdir: of the run.
          keep: which checkpoints stay.
        """
        self._folder = folder(workdir)
        self._pending: tuple[int, float, float] | None = None
        with self._writing():
            self._manager = ocp.CheckpointManager(self._folder.absolute(), options=keep.options())

    def save(
        self, step: int, state: TrainState, metadata: dict[str, Any], metrics: dict[str, float]
    ) -> None:
        """Starts writing a checkpoint; the arrays may be donated once this returns.

        Args:
          step: number of steps done.
          state: after that step.
          metadata: JSON-able description of the run.
          metrics: of this state, for choosing the best.

        Raises:
          InputError: this or an earlier checkpoint cannot be written.
        """
        start = time.monotonic()
        arrays = checksums.of_arrays(local(state))
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state),
                    metadata=ocp.args.JsonSave(
                        checksums.sealed({**metadata, "step": step, "arrays": arrays})
                    ),
                ),
                metrics=metrics,
                force=True,
            )
        self._pending = step, start, time.monotonic()

    def written(self, *, wait: bool = False) -> Written | None:
        """The newest checkpoint, once it is on the disk; told once, None where there is no news.

        Args:
          wait: for the one that is being written.

        Raises:
          InputError: it could not be written.
        """
        if self._pending is None or (not wait and self._manager.is_saving_in_progress()):
            return None
        with self._writing():
            self._manager.wait_until_finished()
        (step, start, returned), self._pending = self._pending, None
        blocked, whole = returned - start, time.monotonic() - start
        return Written(step, {"checkpoint_blocked_seconds": blocked, "checkpoint_seconds": whole})

    def path(self, step: int) -> Path:
        """The folder of a step."""
        return self._folder / str(step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Closes, unless this process fails alone: saving is done by all, or waits for ever."""
        if error is None or isinstance(error, DivergedError) or jax.process_count() == 1:
            self.close()

    def close(self) -> None:
        """Waits until everything is written."""
        with self._writing():
            self._manager.wait_until_finished()
        self._manager.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Errors of writing, those of the background included, which show up late."""
        try:
            yield
        except Exception as error:  # Orbax raises what the file system's library raises
            raise InputError(
                f"{self._folder}: a checkpoint cannot be written ({first_line(error)}): make room "
                "and start again; the checkpoints before it are kept"
            ) from error


def folder(workdir: Path) -> Path:
    """Where the checkpoints of a run are."""
    return workdir / "checkpoints"
