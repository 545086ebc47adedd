"""Evaluation of a fine-tuned run on a split of a dataset: predictions and a report."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import PatchDataset
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.tasks.evaluation_report import write_report
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.supervised import FinetuneObjective, param_shapes, predict_outputs
from sar_mixmae_jax.tasks.task_dataset import (
    TaskDataset,
    load_task_dataset,
    make_predictions,
    take_label_fraction,
)
from sar_mixmae_jax.training import checkpoint, distributed
from sar_mixmae_jax.training.batch_predictor import BatchPredictor
from sar_mixmae_jax.training.config import from_json
from sar_mixmae_jax.training.downstream import make_finetune_objective, shared_splits
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.training.run_description import SourceDescription
from sar_mixmae_jax.training.sharding import replicate
from sar_mixmae_jax.training.source_checkpoint import SourceCheckpoint, read_source_checkpoint
from sar_mixmae_jax.training.train_step import CacheablePartial
from sar_mixmae_jax.training.workdir import EVALUATION
from sar_mixmae_jax.utils import hashing
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import stored_path
from sar_mixmae_jax.utils.typed_json import to_json


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """Checkpoint of a fine-tuned model, without its parameters.

    Attributes:
      source_checkpoint: the checkpoint, as its encoder is described.
      task: name of its task.
      config: configuration of its run.
    """

    source_checkpoint: SourceCheckpoint
    task: str
    config: ConfigDict


class SplitPredictions(NamedTuple):
    """Predictions of a split.

    Attributes:
      predictions: predictions of every record, in its order.
      extra: (records, …) further outputs of the model by name, see `Task.extra_outputs`.
      dataset: name of the dataset.
      data_dir: folder of built datasets that holds it.
    """

    predictions: Predictions
    extra: dict[str, np.ndarray]
    dataset: str
    data_dir: str


def evaluate(
    workdir: Path, *, split: str = "test", out: Path | None = None, **choice: Any
) -> dict[str, Path]:
    """Predict a split and write the report.

    Args:
      workdir: working directory of a run of `configs/finetune.py`.
      split: split of the dataset.
      out: folder of the report; None: in the workdir, by dataset and split.
      **choice: see `predict`.

    Returns:
      File name -> path of the written files; empty except in the primary process.

    Raises:
      InputError: the checkpoint, the dataset or the folder cannot be used.
    """
    result = predict(workdir, split=split, description=f"predicting {split}", **choice)
    if not distributed.is_primary_process():
        return {}
    name = result.dataset.replace("/", "-").replace(":", "-")
    folder = out or workdir / EVALUATION / f"{name}-{split}"
    task = get_task(result.predictions.task)
    pictures = task.example_pictures(result.dataset, result.data_dir, split, result.extra)
    return write_report(result.predictions, folder, pictures, extra=result.extra)


def predict(
    workdir: Path,
    *,
    split: str = "test",
    which: str = "best",
    dataset: str | None = None,
    data_dir: str | None = None,
    batch_size: int | None = None,
    description: str | None = None,
) -> SplitPredictions:
    """Predict a split.

    Args:
      workdir: working directory of a run of `configs/finetune.py`.
      split: split of the dataset.
      which: "best" by the metric of the run, "latest", or a step.
      dataset: name of a dataset with the same classes; None: that of the run.
      data_dir: folder of built datasets; None: that of the run.
      batch_size: records at a time, of all devices; None: that of the task.
      description: text beside a progress bar; None for no progress bar.

    Raises:
      InputError: the checkpoint or the dataset cannot be used.
    """
    model = load_model(workdir, which)
    config, task = model.config, get_task(model.task).configure(model.config)
    name, data_dir = dataset or config.dataset, data_dir or config.data_dir
    bands = model.source_checkpoint.bands
    labelled = load_task_dataset(task, name, data_dir, split, bands, is_other=True)
    check_classes(model, labelled)
    metadata = model.source_checkpoint.metadata
    distributed.broadcast_check(
        {**to_json(metadata), "evaluated": to_json(labelled.patches.describe())}
    )
    objective = make_finetune_objective(
        config, model.source_checkpoint, labelled, metadata.model.votes
    )
    params = replicate(load_params(model, objective))
    predictor = BatchPredictor(
        CacheablePartial(predict_outputs, objective), batch_size or task.eval_batch_size
    )
    outputs = predictor(params, labelled.patches.source, description)

    def training() -> tuple[PatchDataset, str]:
        whole = load_task_dataset(task, config.dataset, config.data_dir, config.train_split, bands)
        fraction = config.label_fraction, config.label_seed
        part = take_label_fraction(whole, *fraction, all_classes=True)
        return part.patches, part.task.label_field

    outputs |= labelled.task.baselines(labelled.patches, training)
    provenance = prediction_provenance(model, labelled, split, which)
    extra = {name: outputs[name] for name in task.extra_arrays if name in outputs}
    return SplitPredictions(make_predictions(labelled, outputs, provenance), extra, name, data_dir)


def load_model(workdir: Path, which: str) -> LoadedModel:
    """Read the description of a checkpoint of a run.

    Args:
      workdir: working directory of the run.
      which: "best", "latest", or a step.

    Raises:
      InputError: there is none, or it holds no fine-tuned model.
    """
    path = checkpoint.select_step(workdir, which)
    try:
        source_checkpoint = read_source_checkpoint(path)
        task = source_checkpoint.metadata.model.task
        if task is None:
            raise ValueError("it is not the model of a task")
        config = from_json(source_checkpoint.metadata.config)
        with config.unlocked():
            config.statistics = None  # those of the checkpoint
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be evaluated ({error}): expected a run of configs/finetune.py, or "
            "another --checkpoint of it; map --features and embed take runs of any kind"
        ) from error
    return LoadedModel(source_checkpoint, task, config)


def check_classes(model: LoadedModel, labelled: TaskDataset) -> None:
    """Raise unless the labels of a dataset are those that the model was trained on.

    Raises:
      InputError: the classes differ.
    """
    trained = model.source_checkpoint.metadata.model.classes
    if labelled.classes != trained:
        raise InputError(
            f"{labelled.patches.name} has the classes {', '.join(labelled.classes)}, and "
            f"{model.source_checkpoint.path} was trained on {', '.join(trained)}: choose a dataset "
            "with the same ones in the same order"
        )


def load_params(model: LoadedModel, objective: FinetuneObjective) -> Any:
    """Load {"encoder", "head"} of a checkpoint.

    Raises:
      InputError: the checkpoint is damaged.
    """
    try:
        return read_subtree(model.source_checkpoint.path, {"params": param_shapes(objective)})[
            "params"
        ]
    except ValueError as error:
        raise InputError(
            f"{model.source_checkpoint.path}: {error}: choose another --checkpoint"
        ) from error


def prediction_provenance(
    model: LoadedModel, labelled: TaskDataset, split: str, which: str
) -> dict[str, Any]:
    """Return the provenance that is stored and reported with predictions, as JSON types.

    Args:
      model: that predicted.
      labelled: dataset that was predicted.
      split: split of that dataset.
      which: choice of the checkpoint, see `predict`.
    """
    evaluated, metadata, config = (
        labelled.patches.describe(),
        model.source_checkpoint.metadata,
        model.config,
    )
    trained_on = metadata.dataset
    metric, converted = config.best_metric, metadata.model.converted
    chosen = f"{config.validation_split} by {metric}"
    if shared_splits(config.train_split, config.validation_split):
        chosen += f"; it is part of the training split, {config.train_split}"
    trained = (
        f"{trained_on.name}, {trained_on.records} {labelled.task.record_noun} "
        f"(label_fraction {config.label_fraction:g})"
    )
    if converted:
        chosen = f"not known: converted from {converted['file']}"
        trained = f"{trained_on.name}: converted from {converted['file']}"
    elif config.get("validation", "split") == "none":
        chosen = "nothing: a run without validation, its latest step"
    elif which != "best":
        chosen = f"by hand: --checkpoint={which}"
    elif metric not in metadata.metrics:
        chosen = f"the latest, since {metric} is undefined on {config.validation_split}"
    pretrained = metadata.model.pretrained
    random_or_unknown = "not known" if converted else "random"
    return {
        "dataset": evaluated.name,
        "split": split,
        "caveats": [*evaluated.caveats, *(trained_on.caveats if converted else ())],
        "dataset checksum": evaluated.checksum,
        "checkpoint": stored_path(model.source_checkpoint.path),
        "chosen on": chosen,
        "trained on": trained,
        "encoder": random_or_unknown if pretrained is None else _known_fields(pretrained),
        "overlap with training": training_overlap(
            labelled.image_ids(), model.source_checkpoint.train_ids, pretrained
        ),
    }


def _known_fields(source: SourceDescription) -> dict[str, Any]:
    return {name: value for name, value in to_json(source).items() if value not in (None, "", [])}


def training_overlap(
    images: np.ndarray, train_ids: str, pretrained: SourceDescription | None
) -> str:
    """Return a sentence about the images that were in the training data of a model.

    Args:
      images: (images,) str, ids of the evaluated images.
      train_ids: hashes of the ids of its training data, see `hashing.pack_ids`.
      pretrained: description of its pretrained encoder, or None.
    """
    count = hashing.count_overlap(images, train_ids)
    stage = "fine-tuning"
    if pretrained is not None:
        stage = f"pretraining on {pretrained.dataset} or in fine-tuning"
    overlap = f"{count} of {len(images)} images were seen in {stage}"
    if hashing.is_complete(train_ids):
        return overlap
    return f"at least {overlap}: the model comes from a file that does not say what it saw"
