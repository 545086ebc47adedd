"""The run folder that an import writes: configuration, description, state and checkpoint."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sar_mixmae_jax.data.metadata import DatasetDescription, Statistics
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.torch_interop.infer_architecture import InferredModel
from sar_mixmae_jax.torch_interop.optimizer_state import AdamMoments
from sar_mixmae_jax.torch_interop.published_checkpoints import PublishedFile
from sar_mixmae_jax.torch_interop.tensor_metadata import TensorFileMetadata
from sar_mixmae_jax.training.checkpoint import CheckpointManager, RetentionPolicy, checkpoint_dir
from sar_mixmae_jax.training.optimizer import Rate, adamw
from sar_mixmae_jax.training.run_description import ModelDescription, RunDescription
from sar_mixmae_jax.training.sharding import replicate
from sar_mixmae_jax.training.train_step import TrainState
from sar_mixmae_jax.training.workdir import RunRecord, describe_start, versions
from sar_mixmae_jax.utils import hashing
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import report_write_errors

EVALUATION_DATASETS = {"classification": "bigearthnet_s1/v2", "flood": "sen12_flood"}
"""Dataset on which a converted model of a task is evaluated by default."""


def downstream_config(
    task: str, file: str, published: PublishedFile | None, *, tiling: str, pooling: str
) -> dict[str, Any]:
    """Return the configuration of a converted downstream model: the fields that evaluations read.

    Args:
      task: name of the task.
      file: name of the converted file.
      published: the released file, if it is one.
      tiling: tiling of a flood detector.
      pooling: pooling of a flood detector.
    """
    return {
        "task": task,
        "seed": 0,
        "init": file,
        "dataset": published.built if published else EVALUATION_DATASETS.get(task, ""),
        "data_dir": "data",
        "train_split": "train",
        "validation_split": "validation",
        "label_fraction": 1.0,
        "best_metric": f"validation/{get_task(task).best_score}",
        "model": {"variant": None},
        "dtype": "auto",
        "remat": "none",
        "resize_mode": "resize",
        "random_flip": True,
        "tiling": tiling,
        "pooling": pooling,
    }


def describe_conversion(
    model: InferredModel,
    classes: Sequence[str],
    bands: tuple[str, ...],
    statistics: Statistics,
    metadata: TensorFileMetadata | None,
    published: PublishedFile | None,
    file_facts: dict[str, Any],
    config: dict[str, Any],
) -> RunDescription:
    """Return the description of a converted model, in the form of those of runs.

    Args:
      model: kind, variant and architecture.
      classes: names of its outputs.
      bands: names of its inputs, in order.
      statistics: with which its inputs are standardised.
      metadata: stored beside its tensors, if any.
      published: the released file, if it is one.
      file_facts: file name, checksum and epoch of the converted file.
      config: configuration of the run.
    """
    caveats = [f"converted from {file_facts['file']}, which does not say which images it has seen"]
    if published:
        caveats.append(published.caveat)
    content = ModelDescription(
        variant=model.variant,
        architecture=model.arch,
        dtype="float32",
        bands=bands,
        unit="dB",
        statistics=statistics,
        weighting=metadata.weighting if metadata else None,
        speckle=metadata.speckle if metadata else None,
        task=model.kind if model.outputs else None,
        classes=tuple(classes) if model.outputs else (),
        converted=file_facts,
    )
    dataset = DatasetDescription(
        published.dataset if published else "not known", caveats=tuple(caveats)
    )
    return RunDescription({**config, "trainer": "convert"}, dataset, content)


def initial_state(params: Any, moments: AdamMoments | None) -> TrainState:
    """Return the state of a checkpoint, on all devices; without an optimizer if there is none."""
    step, opt_state = 0, ()
    if moments:
        step = moments.steps
        optimizer = adamw(Rate(1.0, 0.0, 0.0, 1.0), b1=0.9, b2=0.95, weight_decay=0.05)
        opt_state = optax.tree_utils.tree_set(
            jax.eval_shape(optimizer.init, params),
            mu=moments.mean,
            nu=moments.square,
            count=jnp.int32(step),
        )
    key = jax.random.key_data(jax.random.key(0))
    return replicate(TrainState(jnp.int32(step), params, opt_state, key))


def check_empty(workdir: Path) -> None:
    """Raise unless a folder is new or empty.

    Raises:
      InputError: names some of its content.
    """
    with report_write_errors(workdir):
        content = sorted(path.name for path in workdir.iterdir()) if workdir.exists() else []
    if content:
        raise InputError(
            f"{workdir} is not empty (it holds {', '.join(content[:3])}): choose another --workdir"
        )


def write_run(workdir: Path, state: TrainState, description: RunDescription) -> Path:
    """Write checkpoint and `run.json` to a temporary folder, then move it to its place.

    Args:
      workdir: new or empty folder.
      state: state of the checkpoint.
      description: of `describe_conversion`.

    Returns:
      Folder of the checkpoint.

    Raises:
      InputError: they cannot be written; no partial output is left.
    """
    step = int(state.step)
    metadata = {**description.to_json(), "seen": hashing.INCOMPLETE, "versions": versions()}
    partial = workdir.with_name(f".{workdir.name}.{os.getpid()}.partial")
    try:
        with report_write_errors(workdir):
            partial.mkdir(parents=True)
            record = RunRecord(partial, description)
            with CheckpointManager(partial, RetentionPolicy(1)) as checkpoints:
                checkpoints.save(step, state, metadata, {})
            record.add_start(describe_start(0))
            record.note_saved(step)
            check_empty(workdir)  # another process may have written there meanwhile
            partial.replace(workdir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return checkpoint_dir(workdir) / str(step)
