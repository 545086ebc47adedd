"""Checkpoints: what a run needs to go on, and what a stranger needs to use the encoder.

A step's folder in `workdir/checkpoints` holds the train state, the position in the data, and
metadata as JSON (model, bands, unit, statistics, weighting, configuration, versions).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp

from sar_mixmae_jax.errors import InputError, first_line
from sar_mixmae_jax.step import TrainState


class Checkpoints:
    """The checkpoints of one run, written in the background."""

    def __init__(self, workdir: Path, *, keep: int) -> None:
        """Opens the checkpoints of a working directory.

        Args:
          workdir: of the run.
          keep: how many of the latest to keep.
        """
        self._folder = workdir / "checkpoints"
        self._manager = ocp.CheckpointManager(
            self._folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(keep),
            ),
        )

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(
        self,
        step: int,
        state: TrainState,
        data: grain.DatasetIterator,
        metadata: dict[str, Any],
    ) -> None:
        """Starts writing a checkpoint; the arrays may be donated once this returns.

        Args:
          step: number of steps done.
          state: after that step.
          data: the iterator, having delivered the batch of that step.
          metadata: JSON-able description of the model.

        Raises:
          InputError: this or an earlier checkpoint cannot be written.
        """
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    data=grain.checkpoint.CheckpointSave(data),
                    metadata=ocp.args.JsonSave(metadata),
                ),
                force=True,
            )

    def restore(self, like: TrainState, data: grain.DatasetIterator) -> TrainState:
        """Restores the newest checkpoint and sets the data iterator to its position.

        Args:
          like: a state of the same structure, for shapes and devices.
          data: an iterator over the same data.

        Raises:
          InputError: there is no checkpoint, or it cannot be read.
        """
        step = self.latest_step()
        if step is None:
            raise InputError(f"{self._folder}: found no checkpoint to restore")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract),
                    data=grain.checkpoint.CheckpointRestore(data),
                ),
            )
        except Exception as error:  # Orbax raises bare exceptions on damaged files
            raise InputError(
                f"{self.path(step)}: the checkpoint cannot be restored ({first_line(error)}): if "
                "it is damaged, move this folder away to go on from the one before"
            ) from error
        return restored["state"]

    def path(self, step: int) -> Path:
        """The folder of a step."""
        return self._folder / str(step)

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
