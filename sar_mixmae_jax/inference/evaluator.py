"""From a tuned model in a workdir to a report about a split of a dataset, mostly `test`."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.models.knn import KNNConfig
from sar_mixmae_jax.tasks import report
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.supervised import FinetuneObjective, param_shapes, predict_outputs
from sar_mixmae_jax.tasks.task_dataset import TaskDataset, load_task_dataset, make_predictions
from sar_mixmae_jax.training import checkpoint, distributed, initialisation
from sar_mixmae_jax.training.batch_predictor import BatchPredictor
from sar_mixmae_jax.training.config import from_json
from sar_mixmae_jax.training.downstream import make_finetune_objective
from sar_mixmae_jax.training.initialisation import SourceCheckpoint
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.training.sharding import replicate
from sar_mixmae_jax.training.workdir import EVALUATION
from sar_mixmae_jax.utils import hashing
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.jit import CacheablePartial


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A tuned model of a checkpoint.

    Attributes:
      found: the checkpoint and what its encoder expects.
      metadata: of the checkpoint.
      config: of its run.
    """

    found: SourceCheckpoint
    metadata: dict[str, Any]
    config: ConfigDict


class SplitPredictions(NamedTuple):
    """What a model said of a split.

    Attributes:
      predictions: of every record, in its order.
      extra: (records, …) further outputs of the model, see `Task.extra_outputs`.
      dataset: its name.
      data_dir: where it is built.
    """

    predictions: Predictions
    extra: dict[str, np.ndarray]
    dataset: str
    data_dir: str


def evaluate(
    workdir: Path, *, split: str = "test", out: Path | None = None, **choice: Any
) -> dict[str, Path]:
    """Predicts a split and writes the report.

    Args:
      workdir: of a run of `configs/finetune.py`.
      split: of the dataset.
      out: folder of the report; None: in the workdir, by dataset and split.
      **choice: see `predict`.

    Returns:
      Paths by name of file; none but in the first process.

    Raises:
      InputError: the checkpoint, the dataset or the folder cannot be used.
    """
    made = predict(workdir, split=split, description=f"predicting {split}", **choice)
    if not distributed.is_primary_process():
        return {}
    name = made.dataset.replace("/", "-").replace(":", "-")
    folder = out or workdir / EVALUATION / f"{name}-{split}"
    task = get_task(made.predictions.task)
    pictures = task.example_pictures(made.dataset, made.data_dir, split, made.extra)
    return report.write_report(made.predictions, folder, pictures, extra=made.extra)


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
    """Predicts a split.

    Args:
      workdir: of a run of `configs/finetune.py`.
      split: of the dataset.
      which: "best" by the metric of the run, "latest", or a step.
      dataset: another one than that of the run, with the same classes.
      data_dir: where it is built, if not where the run found it.
      batch_size: records at a time, of all devices; None: the task's.
      description: beside the progress bar; None shows none.

    Raises:
      InputError: the checkpoint or the dataset cannot be used.
    """
    model = load_model(workdir, which)
    config, task = model.config, get_task(model.metadata["model"]["task"])
    name = dataset or config.dataset
    where = data_dir or config.data_dir
    labelled = load_task_dataset(task, name, where, split, model.found.bands)
    check_classes(model, labelled)
    distributed.broadcast_check({**model.metadata, "evaluated": labelled.patches.describe()})
    votes = model.metadata["model"].get("votes")
    tuning = make_finetune_objective(
        config, model.found, labelled, KNNConfig(**votes) if votes else None
    )
    params = replicate(load_params(model, tuning))
    run = BatchPredictor(
        CacheablePartial(predict_outputs, tuning), batch_size or task.eval_batch_size
    )
    made = run(params, labelled.patches.source, description)
    told = prediction_provenance(model, labelled, split, which)
    extra = {name: made[name] for name in task.extra_arrays if name in made}
    return SplitPredictions(make_predictions(labelled, made, told), extra, name, where)


def load_model(workdir: Path, which: str) -> LoadedModel:
    """The checkpoint of a run.

    Raises:
      InputError: there is none, or it is of no tuned model.
    """
    path = checkpoint.select_step(workdir, which)
    try:
        metadata = checkpoint.read_metadata(path)
        found = initialisation.read_source_checkpoint(path, metadata)
        config = from_json(metadata["config"])
        metadata["model"]["task"], metadata["model"]["classes"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be evaluated ({error}): expected a run of configs/finetune.py, or "
            "another --checkpoint of it"
        ) from error
    return LoadedModel(found, metadata, config)


def check_classes(model: LoadedModel, labelled: TaskDataset) -> None:
    """Refuses labels that mean something else than in training.

    Raises:
      InputError: names both.
    """
    trained = tuple(model.metadata["model"]["classes"])
    if labelled.classes != trained:
        raise InputError(
            f"{labelled.patches.name} has the classes {', '.join(labelled.classes)}, and "
            f"{model.found.path} was trained on {', '.join(trained)}: choose a dataset with the "
            "same ones in the same order"
        )


def load_params(model: LoadedModel, tuning: FinetuneObjective) -> Any:
    """{"encoder", "head"} of the checkpoint.

    Raises:
      InputError: it is damaged.
    """
    try:
        return read_subtree(model.found.path, {"params": param_shapes(tuning)})[0]["params"]
    except ValueError as error:
        raise InputError(f"{model.found.path}: {error}: choose another --checkpoint") from error


def prediction_provenance(
    model: LoadedModel, labelled: TaskDataset, split: str, which: str
) -> dict[str, Any]:
    """What a reader of the results must know, as JSON has it."""
    described, metadata = labelled.patches.describe(), model.metadata
    metric, converted = model.config.best_metric, metadata["model"].get("converted")
    chosen = f"{model.config.validation_split} by {metric}"
    trained = (
        f"{metadata['dataset']['name']}, {metadata['dataset']['records']} records "
        f"(label_fraction {model.config.label_fraction:g})"
    )
    if converted:
        chosen = f"not known: converted from {converted['file']}"
        trained = f"{metadata['dataset']['name']}: converted from {converted['file']}"
    elif which != "best":
        chosen = f"by hand: --checkpoint={which}"
    elif metric not in metadata["metrics"]:
        chosen = f"the latest, since {metric} is undefined on {model.config.validation_split}"
    before = metadata["model"]["pretrained"]
    told: dict[str, Any] = {
        "dataset": described["name"],
        "split": split,
        "caveats": [*described["caveats"], *(metadata["dataset"]["caveats"] if converted else ())],
        "dataset checksum": described["checksum"],
        "checkpoint": str(model.found.path),
        "chosen on": chosen,
        "trained on": trained,
        "encoder": ("not known" if converted else "random") if before is None else before,
    }
    images = labelled.image_ids()
    known = hashing.count_overlap(images, model.found.seen)
    source = "fine-tuning" if before is None else f"pretraining on {before['dataset']} or tuning"
    overlap = f"{known} of {len(images)} images were seen in {source}"
    if not hashing.is_complete(model.found.seen):
        overlap = f"at least {overlap}: the model comes from a file that does not say what it saw"
    told["overlap with training"] = overlap
    return told
