"""Probes of a frozen encoder: `train(config, workdir)`, from an encoder to a fitted head."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from sar_mixmae_jax.objectives.radiometry import TO_DB
from sar_mixmae_jax.tasks.registry import task_for_dataset
from sar_mixmae_jax.tasks.supervised import (
    FinetuneObjective,
    init_model_params,
    param_shapes,
)
from sar_mixmae_jax.tasks.task_dataset import TaskDataset
from sar_mixmae_jax.training import feature_cache
from sar_mixmae_jax.training.checkpoint import (
    CheckpointManager,
    checkpoint_steps,
    remove_unfinished,
)
from sar_mixmae_jax.training.config import make_retention_policy
from sar_mixmae_jax.training.downstream import (
    choose_bands,
    complete_config,
    describe_run,
    make_finetune_objective,
    open_inputs,
    run_title,
)
from sar_mixmae_jax.training.encoder_loading import (
    replace_encoder,
    resolve_encoder,
)
from sar_mixmae_jax.training.feature_cache import FeatureCache
from sar_mixmae_jax.training.kernel_choice import kernel_names
from sar_mixmae_jax.training.probe_heads import METHODS, FittedHead
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.training.run_description import RunDescription
from sar_mixmae_jax.training.sharding import replicate
from sar_mixmae_jax.training.source_checkpoint import merge_train_ids
from sar_mixmae_jax.training.train_step import TrainState
from sar_mixmae_jax.training.trainer import RunResult
from sar_mixmae_jax.training.workdir import (
    RECORD,
    RunRecord,
    lock_workdir,
    versions,
)
from sar_mixmae_jax.utils.errors import InputError, look_up
from sar_mixmae_jax.utils.files import atomic_write, report_write_errors
from sar_mixmae_jax.utils.typed_json import to_json

SCORES = "probe.json"
"""File in the workdir: validation metrics of the head that was chosen and of all candidates."""


def train(config: ConfigDict, workdir: Path, stop: Callable[[], bool] = lambda: False) -> RunResult:
    """Probe a frozen encoder, unless the workdir holds the result.

    Args:
      config: as returned by `configs/finetune.py` for `linear_probe` or `knn`.
      workdir: for features, scores and the checkpoint.
      stop: not called; features in the workdir are not computed again.

    Raises:
      InputError: the configuration, the encoder, the dataset or the workdir cannot be used.
    """
    del stop
    if jax.process_count() > 1:
        raise InputError("probes run in one process: start it without --num_processes")
    method = look_up(METHODS, config.task, "task")
    check_rates(config.probe.learning_rates)
    config, source_checkpoint = choose_bands(config, resolve_encoder(config, workdir))
    dataset = load_patch_dataset(
        config.dataset, config.data_dir, config.train_split, config.bands, units=tuple(TO_DB)
    )
    task = task_for_dataset(dataset)
    config = complete_config(config, task)
    inputs = open_inputs(config, task, source_checkpoint)
    training, validation, linear_objective = inputs.training, inputs.validation, inputs.objective
    assert validation is not None  # see complete_config
    votes = method.votes(config, training)
    objective = make_finetune_objective(
        config, source_checkpoint, training, votes, inputs.kernels, inputs.statistics
    )
    description = describe_run(config, source_checkpoint, inputs, objective)
    with lock_workdir(workdir, config.upload_every):
        record = RunRecord(workdir, description)
        remove_unfinished(workdir)
        if not checkpoint_steps(workdir):
            record.note_start(0, kernel_names(inputs.kernels))
            params = init_model_params(linear_objective, jax.random.key(config.seed))
            params = replace_encoder(
                params, linear_objective.model.arch, source_checkpoint, config.bands
            )
            pretrained = description.model.pretrained
            name = json.dumps(to_json(pretrained) if pretrained else config.seed)
            both = read_features(
                config, workdir, name, linear_objective, params, training, validation
            )
            head = method.fit(config, training, validation, *both)
            write_scores(workdir / SCORES, head)
            params = {"encoder": params["encoder"], "head": head.params}
            train_ids = merge_train_ids(source_checkpoint, training.image_ids())
            save_probe(config, workdir, description, params, head, train_ids)
            record.note_saved(config.probe.steps)
        last = checkpoint_steps(workdir)[-1]
        params = read_subtree(last, {"params": param_shapes(objective)})["params"]
    files = {"checkpoint": last, "scores": workdir / SCORES, "record of the run": workdir / RECORD}
    state = TrainState(jnp.int32(config.probe.steps), params, (), jnp.zeros(2, jnp.uint32))
    name = f"{run_title(config, source_checkpoint)} on {training.patches.title}"
    return RunResult(name, state, files, finished=True)


def check_rates(rates: Sequence[float]) -> None:
    """Check the learning rates.

    Raises:
      InputError: there is none, or one is not a positive number up to 1,000.
    """
    if not rates or not all(isinstance(rate, (int, float)) and 0 < rate <= 1e3 for rate in rates):
        raise InputError(
            f"probe.learning_rates is {tuple(rates)}: expected at least one positive number, each "
            "up to 1,000"
        )


def write_scores(path: Path, head: FittedHead) -> None:
    """Write the validation metrics of the chosen head and of all candidates.

    Raises:
      InputError: it cannot be written.
    """
    content = {"chosen": head.scores, "tried": head.tried}
    with report_write_errors(path, "make room and start again; the features are kept"):
        atomic_write(path, (json.dumps(content, indent=2) + "\n").encode())


def read_features(
    config: ConfigDict,
    workdir: Path,
    encoder: str,
    objective: FinetuneObjective,
    params: Any,
    *splits: TaskDataset,
) -> list[FeatureCache]:
    """Return the features of the training and validation split, from the workdir if possible."""
    replicated = replicate({"encoder": params["encoder"]})
    batch_size = config.batch_size or objective.task.eval_batch_size
    return [
        feature_cache.load_or_compute_features(
            workdir / f"features-{name}.npz", encoder, objective, replicated, split, batch_size
        )
        for name, split in zip(("train", "validation"), splits, strict=True)
    ]


def save_probe(
    config: ConfigDict,
    workdir: Path,
    description: RunDescription,
    params: dict[str, Any],
    head: FittedHead,
    train_ids: str,
) -> None:
    """Write the checkpoint.

    Raises:
      InputError: it cannot be written.
    """
    key = jax.random.key_data(jax.random.key(config.seed))
    state = replicate(TrainState(jnp.int32(config.probe.steps), params, (), key))
    metadata = {**description.to_json(), "seen": train_ids, "versions": versions()}
    with CheckpointManager(workdir, make_retention_policy(config)) as checkpoints:
        checkpoints.save(config.probe.steps, state, metadata, head.scores)
