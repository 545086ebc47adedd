"""A split of a dataset for a task, stratified fractions of its labels, and its predictions."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from sar_mixmae_jax.data.patch_dataset import PatchDataset, load_patch_dataset
from sar_mixmae_jax.data.record_source import Subset
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.objectives.radiometry import TO_DB
from sar_mixmae_jax.tasks.base import Task
from sar_mixmae_jax.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class TaskDataset:
    """A split of a dataset for a task.

    Attributes:
      task: the task.
      patches: the dataset, with the records of the task as its source.
      ids: (records,) str.
      columns: (records,) each, by name; see `Task.columns`.
      classes: names of the classes.
    """

    task: Task
    patches: PatchDataset
    ids: np.ndarray
    columns: dict[str, np.ndarray]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def image_ids(self) -> np.ndarray:
        """Return the unique ids of all images that are read."""
        dates = [self.columns[name] for name in self.task.images if name in self.columns]
        return np.unique(np.concatenate(dates or [self.ids]))

    def subset(self, rows: np.ndarray) -> "TaskDataset":
        """Return some of the records.

        Args:
          rows: (k,) int, their numbers.
        """
        pairs = self.patches.pairs
        if pairs is not None:
            pairs = {name: column[rows] for name, column in pairs.items()}
        patches = dataclasses.replace(
            self.patches, source=Subset(self.patches.source, rows), pairs=pairs, read=None
        )
        columns = {name: column[rows] for name, column in self.columns.items()}
        return dataclasses.replace(self, patches=patches, ids=self.ids[rows], columns=columns)


def load_task_dataset(
    task: Task,
    name: str,
    data_dir: str,
    split: str,
    bands: Sequence[str],
    *,
    is_other: bool = False,
) -> TaskDataset:
    """Open a split for a task.

    Args:
      task: the task.
      name: name of the dataset; see `load_patch_dataset`.
      data_dir: folder with the built datasets.
      split: split of the dataset.
      bands: names of the bands to read, in order.
      is_other: whether the task may be configured for another dataset.

    Raises:
      InputError: the split cannot be opened, or has no labels for the task.
    """
    patches = load_patch_dataset(
        name, data_dir, split, bands, units=tuple(TO_DB), also=task.optional_fields
    )
    task = (task.for_other_dataset(patches) if is_other else task).for_dataset(patches)
    classes, records = task.class_names(patches), task.load_records(patches)
    ids = np.array(patches.ids())
    if len(ids) != len(patches.source):
        raise InputError(
            f"{patches.name} holds {len(patches.source)} records and lists {len(ids)} ids in "
            f"{patches.folder}: build it again"
        )
    columns = task.columns(patches, ids)
    return TaskDataset(task, records, task.record_ids(ids, columns), columns, classes)


def take_label_fraction(
    dataset: TaskDataset, fraction: float, seed: int, *, all_classes: bool
) -> TaskDataset:
    """Return a stratified fraction; smaller ones are subsets of larger ones of the same seed.

    Args:
      dataset: the whole split.
      fraction: fraction of the label units, above 0, at most 1.
      seed: random seed of the choice.
      all_classes: whether a class that is left without a record is an error or a warning.

    Raises:
      InputError: the fraction is out of range, or a class is left without a record.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"label_fraction is {fraction}: expected above 0 and at most 1")
    if fraction == 1:
        return dataset
    units = dataset.task.label_units(dataset.patches)
    chosen = choose_fraction(units.labels, fraction, seed)
    present = units.labels if units.present is None else units.present
    lost = missing_classes(present, chosen, dataset.classes)
    names = ", ".join(lost) or "anything"
    message = f"label_fraction={fraction:g} leaves no record of {names} in {dataset.patches.name}"
    if not chosen.any() or (lost and all_classes):
        raise InputError(f"{message}: choose a larger one")
    if lost:
        logging.warning("%s: their metrics are undefined", message)
    return dataset.subset(np.flatnonzero(chosen[units.unit_of_record]))


def choose_fraction(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return which units keep their labels.

    A unit belongs to the stratum of its rarest class; the same fraction of each stratum is taken,
    in a random order. With one seed, a smaller fraction takes a subset of what a larger one takes.

    Args:
      labels: (units, classes) 1 where a unit has a class; units without any are a stratum too.
      fraction: fraction of the units, above 0, at most 1.
      seed: random seed of the order.

    Returns:
      (units,) bool.
    """
    count = labels.sum(0).astype(float)
    rarity = np.where(labels > 0, count, np.inf)
    stratum = np.where(labels.any(1), rarity.argmin(1), labels.shape[1])
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for number in range(labels.shape[1] + 1):
        members = np.flatnonzero(stratum == number)
        place[members] = (rng.permutation(len(members)) + 0.5) / max(len(members), 1)
    return place < fraction


def missing_classes(labels: np.ndarray, chosen: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Return the names of classes that some unit has, but none of the chosen units.

    Args:
      labels: (units, classes) 1 where a unit has a class.
      chosen: (units,) bool.
      classes: names of the classes.
    """
    lost = labels.any(0) & ~labels[chosen].any(0)
    return [name for name, is_lost in zip(classes, lost, strict=True) if is_lost]


def make_predictions(
    dataset: TaskDataset, outputs: Mapping[str, np.ndarray], provenance: dict[str, Any]
) -> Predictions:
    """Return the checked predictions of a split.

    Args:
      dataset: the split.
      outputs: (records, …) "logits", "labels" and `Task.record_arrays`, in its order.
      provenance: JSON values by name; see `Predictions`.

    Raises:
      InputError: a logit is not finite, or the labels are not those of the task.
    """
    predictions = Predictions(
        dataset.task.name,
        dataset.classes,
        dataset.ids,
        outputs["logits"],
        outputs["labels"],
        dataset.columns,
        provenance,
        {name: outputs[name] for name in dataset.task.record_arrays if name in outputs},
    )
    dataset.task.check_predictions(predictions)
    return predictions
