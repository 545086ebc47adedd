"""How scores are read from metrics: what the kinds of predictions have in common."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sar_mixmae_jax.data.date_pairs import PairSource
from sar_mixmae_jax.data.patch_dataset import PatchDataset, read_column
from sar_mixmae_jax.evaluation.metrics import Metrics
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.models.heads import Classifier, DownstreamModel, FloodDetector
from sar_mixmae_jax.tasks.kinds import KINDS
from sar_mixmae_jax.utils.errors import InputError


class LabelUnits(NamedTuple):
    """What labels are given to, where a part of them is taken: records, or sequences of them.

    Attributes:
      labels: (units, classes) 1 where a unit has a class.
      of: (records,) the unit of every record.
    """

    labels: np.ndarray
    of: np.ndarray


@dataclasses.dataclass(frozen=True)
class Task:
    """A downstream task.

    Attributes:
      images: fields of a record that are images, one for every date.
      fields: of the dataset's records that are read, where it has them.
      pick: makes the records of the task, of the dataset's.
      classes: their names.
      columns: of the patches and the ids of their records: what is known of every record of the
        task besides; "group" says what is independent.
      ids: of the records of the task, of the ids of the dataset's records and the columns.
      units: what labels are given to.
      model: what stands on the encoder.
      settings: fields of the configuration that the model is made with.
      tiled: whether the encoder sees tiles of an image, or all of it.
      loss: (batch, classes) logits and labels -> (batch,).
      at_once: records in a batch where nothing is trained.
    """

    images: tuple[str, ...]
    fields: tuple[str, ...]
    pick: Callable[[PatchDataset], PatchDataset]
    classes: Callable[[PatchDataset], tuple[str, ...]]
    columns: Callable[[PatchDataset, np.ndarray], dict[str, np.ndarray]]
    ids: Callable[[np.ndarray, dict[str, np.ndarray]], np.ndarray]
    units: Callable[[PatchDataset], LabelUnits]
    model: type[DownstreamModel]
    settings: tuple[str, ...]
    tiled: bool
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    at_once: int


# ---- land cover: several labels an image


def label_names(patches: PatchDataset) -> tuple[str, ...]:
    """The classes of a dataset.

    Raises:
      InputError: it has none.
    """
    if not patches.classes:
        raise InputError(
            f"{patches.name} has no labels: choose a labelled dataset, such as bigearthnet_s1"
        )
    return patches.classes


def scenes(patches: PatchDataset, ids: np.ndarray) -> dict[str, np.ndarray]:
    """The acquisition that a patch is of: patches of one are alike."""
    names = [name.rsplit("_", patches.place_fields)[0] for name in ids]
    return {"group": np.array(names if patches.place_fields else ids)}


def labelled_records(patches: PatchDataset) -> LabelUnits:
    """Every record is labelled for itself."""
    labels = read_column(patches, "labels")
    return LabelUnits(labels, np.arange(len(labels)))


def multilabel_soft_margin_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Multi-label soft-margin loss: the mean over the classes of the logistic loss, (batch,)."""
    return optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype)).mean(-1)


# ---- floods: two dates


def as_pairs(patches: PatchDataset) -> PatchDataset:
    """The pairs of a dataset as its records.

    Raises:
      InputError: it has none.
    """
    if patches.pairs is None:
        raise InputError(
            f"{patches.name} has no pairs of dates: choose a dataset that has, such as sen12_flood "
            "or flood_pairs"
        )
    return dataclasses.replace(patches, source=PairSource(patches.source, patches.pairs))


def known_of_pairs(patches: PatchDataset, ids: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of the pairs, with the ids of the images in place of their numbers."""
    assert patches.pairs is not None
    columns = {name: column for name, column in patches.pairs.items() if name != "flooded"}
    return columns | {name: ids[columns[name]] for name in ("before", "after")}


def names_of_pairs(ids: np.ndarray, columns: dict[str, np.ndarray]) -> np.ndarray:
    """The id of every pair: "before > after"."""
    del ids
    both = zip(columns["before"], columns["after"], strict=True)
    return np.array([f"{before} > {after}" for before, after in both])


def labelled_sequences(patches: PatchDataset) -> LabelUnits:
    """Who labels a sequence labels all of its pairs; it has a flood or not."""
    assert patches.pairs is not None
    _, of = np.unique(patches.pairs["sequence"], return_inverse=True)
    flooded = np.zeros(of.max() + 1, bool)
    np.logical_or.at(flooded, of, patches.pairs["flooded"] == 1)
    return LabelUnits(np.stack([~flooded, flooded], axis=1).astype(np.uint8), of)


TASKS = {
    "classification": Task(
        images=("backscatter",),
        fields=("labels",),
        pick=lambda patches: patches,
        classes=label_names,
        columns=scenes,
        ids=lambda ids, _: ids,
        units=labelled_records,
        model=Classifier,
        settings=(),
        tiled=False,
        loss=multilabel_soft_margin_loss,
        at_once=256,
    ),
    "flood": Task(
        images=("before", "after"),
        fields=(),
        pick=as_pairs,
        classes=lambda _: KINDS["flood"].classes or (),
        columns=known_of_pairs,
        ids=names_of_pairs,
        units=labelled_sequences,
        model=FloodDetector,
        settings=("tiling", "pooling"),
        tiled=True,
        loss=optax.softmax_cross_entropy_with_integer_labels,
        at_once=16,  # pairs of 512 px have 32 tiles
    ),
}
"""The tasks by name."""


def task_of(patches: PatchDataset) -> str:
    """The task that a dataset is for: floods where it has pairs, else its labels."""
    return "flood" if patches.pairs is not None else "classification"


def scores(predictions: Predictions, metrics: Metrics) -> dict[str, float]:
    """The mean loss and the scores that are defined, as they are logged.

    Args:
      predictions: of a split.
      metrics: of them.
    """
    task, kind = TASKS[predictions.task], KINDS[predictions.task]
    losses = task.loss(jnp.asarray(predictions.logits), jnp.asarray(predictions.labels))
    found = {"loss": float(np.mean(losses)), **kind.read_scores(metrics)}
    return {f"validation/{name}": value for name, value in found.items() if value is not None}
