"""Restoring of checkpoints: the newest one whose arrays have their checksums.

Every process reads for itself, so that a checkpoint fits any number of processes and devices.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from sar_mixmae_jax.training.checkpoint import (
    array_checksums,
    checkpoint_dir,
    checkpoint_steps,
    read_metadata,
    single_process_options,
)
from sar_mixmae_jax.training.distributed import broadcast_from_primary, is_primary_process
from sar_mixmae_jax.training.run_description import CheckpointMetadata, RunDescription
from sar_mixmae_jax.training.train_step import TrainState
from sar_mixmae_jax.training.workdir import check_same_run
from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import find_mirror, unused_path

DAMAGED = "checkpoints_damaged"
"""Folder in the working directory to which damaged checkpoints are moved."""


class RestoredCheckpoint(NamedTuple):
    """A valid checkpoint.

    Attributes:
      step: number of steps done.
      state: arrays of the host.
      metadata: stored with it.
    """

    step: int
    state: TrainState
    metadata: CheckpointMetadata


def restore_for_resume(
    workdir: Path, like: TrainState, description: RunDescription, known: int | None = None
) -> RestoredCheckpoint | None:
    """Restore the newest valid checkpoint of a run, the same for all processes; None without one.

    Damaged ones are named in a warning and moved to `DAMAGED` by the first process.

    Args:
      workdir: working directory of the run.
      like: shapes and types of the state.
      description: description of the run that is resumed; checkpoints of other runs are not used.
      known: the newest step that is known to have been saved.

    Raises:
      InputError: there are checkpoints, or have been, and none of them is valid.
    """
    saved = (
        restore_newest_valid(workdir, like, description, known) if is_primary_process() else None
    )
    step = broadcast_from_primary(saved.step if saved else -1)
    if saved is None and step >= 0:
        path = checkpoint_dir(workdir) / str(step)
        try:
            saved = read_checkpoint(path, like)
        except ValueError as error:
            raise InputError(
                f"{path}: the first process goes on from there, but this one "
                f"cannot ({error}): give all of them the same --workdir, on a shared disk"
            ) from error
    return saved


def restore_newest_valid(
    workdir: Path, like: TrainState, description: RunDescription, known: int | None = None
) -> RestoredCheckpoint | None:
    """Restore as `restore_for_resume` does, in one process."""
    damaged: list[tuple[Path, str]] = []
    for path in reversed(checkpoint_steps(workdir)):
        try:
            saved = read_checkpoint(path, like)
            check_same_run(saved.metadata, description)
        except ValueError as error:
            damaged.append((path, str(error)))
            logging.warning("%s is not used: %s", path, error)
            continue
        for bad, _ in damaged:
            logging.warning("moved %s to %s", bad, quarantine(bad))
        if known is not None and saved.step < known:
            logging.warning(
                "step %d was saved and is missing or damaged: resuming from step %d",
                known,
                saved.step,
            )
        return saved
    if damaged or known is not None:
        reasons = "; ".join(f"{path.name}: {reason}" for path, reason in damaged)
        reasons = reasons or f"step {known} was saved, and the folder is empty or gone"
        raise InputError(
            f"{checkpoint_dir(workdir)}: found no valid checkpoint ({reasons}): restore one from a "
            "copy, or choose another --workdir to start from scratch"
        )
    return None


def read_checkpoint(path: Path, like: TrainState) -> RestoredCheckpoint:
    """Read and verify the checkpoint of a step.

    Args:
      path: its folder.
      like: shapes and types of the state.

    Raises:
      ValueError: it is damaged, or of another model.
    """
    fetch(path)
    metadata = read_metadata(path)
    if str(metadata.step) != path.name:
        raise ValueError(
            f"its metadata is of step {metadata.step}, the folder is named {path.name}"
        )
    return RestoredCheckpoint(metadata.step, _read_verified(path, like, metadata), metadata)


def read_subtree(path: Path, like: dict[str, Any]) -> dict[str, Any]:
    """Read and verify some arrays of a checkpoint.

    Args:
      path: folder of the step.
      like: tree of shapes and types, such as {"params": {"encoder": …}}.

    Raises:
      ValueError: it is damaged, or of another model.
    """
    fetch(path)
    return _read_verified(path, like, read_metadata(path), partial=True)


def _read_verified(
    path: Path, like: Any, metadata: CheckpointMetadata, *, partial: bool = False
) -> Any:
    """Read the arrays of a checkpoint and compare them with their checksums; see `_read_state`."""
    try:
        state = _read_state(path / "state", like, partial=partial)
    except Exception as error:  # Orbax and its libraries raise bare exceptions on damaged files
        raise ValueError(f"its arrays cannot be read ({first_line(error)})") from error
    stored, found = metadata.arrays, array_checksums(state)
    names = found if partial else {*stored, *found}
    wrong = sorted(name for name in names if stored.get(name) != found.get(name))
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"its arrays {', '.join(wrong[:3])}{more} do not have their checksums")
    return state


def _read_state(path: Path, like: Any, *, partial: bool) -> Any:
    """Read arrays to the host, without waiting for other processes.

    Args:
      path: path of the arrays.
      like: tree of shapes and types.
      partial: whether the checkpoint may hold more.
    """
    alone = single_process_options()
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        as_array = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
        state = checkpointer.restore(
            path.absolute(),
            args=ocp.args.PyTreeRestore(item=like, restore_args=as_array, partial_restore=partial),
        )
    for (where, found), expected in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(like), strict=True
    ):
        if (found.shape, found.dtype) != (expected.shape, expected.dtype):
            raise TypeError(
                f"{jax.tree_util.keystr(where)} is {found.dtype}{found.shape}, expected "
                f"{expected.dtype}{expected.shape}"
            )
    return state


def fetch(path: Path) -> None:
    """Fetch a checkpoint of a run in a bucket; nothing happens for a local one.

    Raises:
      StorageError: it cannot be read, which does not mean that it is damaged.
    """
    mirror = find_mirror(path.absolute())
    if mirror:
        mirror.fetch(path.absolute())


def quarantine(path: Path) -> Path:
    """Move a damaged checkpoint to the folder `DAMAGED`.

    Raises:
      InputError: it cannot be moved.
    """
    place = path.parents[1] / DAMAGED
    try:
        place.mkdir(exist_ok=True)
        return path.rename(unused_path(place / path.name))
    except OSError as error:
        raise InputError(
            f"{path} is damaged and cannot be moved to {place} ({first_line(error)}): move it away"
        ) from error
