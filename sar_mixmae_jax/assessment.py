"""From a tuned model in a workdir to a report about a split of a dataset.

The only place where the split `test` is read.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sar_mixmae_jax import checkpoint, evaluation, pretrained, processes, seen
from sar_mixmae_jax.bands import BANDS
from sar_mixmae_jax.configuration import from_json
from sar_mixmae_jax.data import open_patches
from sar_mixmae_jax.devices import replicate
from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.evaluation import PairPicture
from sar_mixmae_jax.files import write_arrays
from sar_mixmae_jax.finetune import make_tuning
from sar_mixmae_jax.heads import Votes
from sar_mixmae_jax.labelled import Labelled, open_labelled, predictions
from sar_mixmae_jax.predict import Prediction
from sar_mixmae_jax.pretrained import Pretrained
from sar_mixmae_jax.restore import read_part
from sar_mixmae_jax.tuning import Tuning, outputs, shapes

EVIDENCE = "evidence.npz"


@dataclasses.dataclass(frozen=True)
class Model:
    """A tuned model of a checkpoint.

    Attributes:
      found: the checkpoint and what its encoder expects.
      metadata: of the checkpoint.
      config: of its run.
    """

    found: Pretrained
    metadata: dict[str, Any]
    config: ConfigDict


def evaluate(
    workdir: Path,
    *,
    split: str = "test",
    which: str = "best",
    dataset: str | None = None,
    data_dir: str | None = None,
    out: Path | None = None,
    batch_size: int = 256,
) -> dict[str, Path]:
    """Predicts a split and writes the report.

    Args:
      workdir: of a run of `configs/finetune.py`.
      split: of the dataset.
      which: "best" by the metric of the run, "latest", or a step.
      dataset: another one than that of the run, with the same classes.
      data_dir: where it is built, if not where the run found it.
      out: folder of the report; None: in the workdir, by dataset and split.
      batch_size: records at a time.

    Returns:
      Paths by name of file.

    Raises:
      InputError: the checkpoint, the dataset or the folder cannot be used.
    """
    model = open_model(workdir, which)
    config, task = model.config, model.metadata["model"]["task"]
    name = dataset or config.dataset
    where = data_dir or config.data_dir
    labelled = open_labelled(task, name, where, split, model.found.bands)
    check_classes(model, labelled)
    votes = model.metadata["model"].get("votes")
    tuning = make_tuning(config, model.found, labelled, Votes(**votes) if votes else None)
    params = replicate(load_params(model, tuning))
    source = labelled.patches.source
    predict = Prediction(partial(outputs, tuning=tuning), batch_size)
    made = predict(params, source, f"predicting {split}")
    folder = out or workdir / "evaluation" / f"{name.replace('/', '-').replace(':', '-')}-{split}"
    predicted = predictions(labelled, made, about(model, labelled, split))
    if not processes.is_first():
        return {}
    pictures = None
    if task == "flood":
        pictures = pair_pictures(name, where, split, made.get("evidence"))
    files = evaluation.write(predicted, folder, pictures)
    if "evidence" in made:
        arrays = {"ids": labelled.ids, "evidence": made["evidence"]}
        files[EVIDENCE] = write_arrays(folder / EVIDENCE, arrays)
    return files


def open_model(workdir: Path, which: str) -> Model:
    """The checkpoint of a run.

    Raises:
      InputError: there is none, or it is of no tuned model.
    """
    path = checkpoint.choose(workdir, which)
    try:
        metadata = checkpoint.read_metadata(path)
        found = pretrained.describe(path, metadata)
        config = from_json(metadata["config"])
        metadata["model"]["task"], metadata["model"]["classes"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be evaluated ({error}): expected a run of configs/finetune.py, or "
            "another --checkpoint of it"
        ) from error
    return Model(found, metadata, config)


def check_classes(model: Model, labelled: Labelled) -> None:
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


def load_params(model: Model, tuning: Tuning) -> Any:
    """{"encoder", "head"} of the checkpoint.

    Raises:
      InputError: it is damaged.
    """
    try:
        return read_part(model.found.path, {"params": shapes(tuning)})[0]["params"]
    except ValueError as error:
        raise InputError(f"{model.found.path}: {error}: choose another --checkpoint") from error


def about(model: Model, labelled: Labelled, split: str) -> dict[str, Any]:
    """What a reader of the results must know, as JSON has it."""
    described, metadata = labelled.patches.describe(), model.metadata
    before = metadata["model"]["pretrained"]
    told: dict[str, Any] = {
        "dataset": described["name"],
        "split": split,
        "caveats": described["caveats"],
        "dataset checksum": described["checksum"],
        "checkpoint": str(model.found.path),
        "chosen on": f"{model.config.validation_split} by {model.config.best_metric}",
        "trained on": f"{metadata['dataset']['name']}, {metadata['dataset']['records']} records "
        f"(label_fraction {model.config.label_fraction:g})",
        "encoder": "random" if before is None else before,
    }
    if before is not None:
        images = np.unique(labelled.patches.ids())
        known = seen.overlap(images, model.found.seen)
        told["overlap with pretraining"] = (
            f"{known} of {len(images)} images were seen in pretraining on {before['dataset']}"
        )
    return told


def pair_pictures(
    name: str, data_dir: str, split: str, evidence: np.ndarray | None
) -> Callable[[int], PairPicture]:
    """Reads a pair when its picture is asked for, with the true water where the dataset has it.

    Args:
      name: of the dataset.
      data_dir: where it is built.
      split: of it.
      evidence: (pairs, row, column) of tiles, or None.
    """
    patches = open_labelled("flood", name, data_dir, split, BANDS).patches
    assert patches.pairs is not None
    after, truth = patches.pairs["after"], None
    if "water" in patches.fields:
        truth = open_patches(name, data_dir, split, BANDS, ("id", "water")).source

    def picture(row: int) -> PairPicture:
        record = patches.source[row]
        water = None if truth is None else truth[int(after[row])]["water"].astype(bool)
        tiles = None if evidence is None else evidence[row]
        return PairPicture(record["before"], record["after"], water, tiles)

    return picture
