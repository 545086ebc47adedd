"""A part of the labels: stratified, seeded and nested, for comparisons with few labels."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from sar_mixmae_jax.data.patch_dataset import PatchDataset, Subset, load_patch_dataset
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.objectives.radiometry import TO_DB
from sar_mixmae_jax.tasks.base import TASKS
from sar_mixmae_jax.utils.errors import InputError


def choose_fraction(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which units keep their labels.

    A unit belongs to the stratum of its rarest class; of every stratum the same share is taken, in
    a random order. With one seed, a smaller fraction takes a part of what a larger one takes.

    Args:
      labels: (units, classes) 1 where a unit has a class; units without any are a stratum too.
      fraction: of the units, above 0, at most 1.
      seed: of the order.

    Returns:
      (units,) bool.
    """
    if fraction >= 1:
        return np.ones(len(labels), bool)
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
    """The classes that had units and have none among the chosen."""
    lost = labels.any(0) & ~labels[chosen].any(0)
    return [name for name, is_lost in zip(classes, lost, strict=True) if is_lost]


def check_fraction(fraction: float) -> None:
    """Refuses what is no share.

    Raises:
      InputError: it is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"label_fraction is {fraction}: expected above 0 and at most 1")


@dataclasses.dataclass(frozen=True)
class TaskDataset:
    """A split of a dataset for a task.

    Attributes:
      task: an entry of `TASKS`.
      patches: whose source gives the records of the task.
      ids: (records,) of them.
      columns: (records,) each: what is known of them besides; "group" says what is independent.
      classes: names of the labels.
    """

    task: str
    patches: PatchDataset
    ids: np.ndarray
    columns: dict[str, np.ndarray]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def images(self) -> np.ndarray:
        """The ids of all images that are read, each once."""
        names = TASKS[self.task].images
        dates = [self.columns[name] for name in names if name in self.columns]
        return np.unique(np.concatenate(dates or [self.ids]))

    def chosen(self, rows: np.ndarray) -> "TaskDataset":
        """Some of the records, by their numbers."""
        pairs = self.patches.pairs
        some = None if pairs is None else {name: column[rows] for name, column in pairs.items()}
        patches = dataclasses.replace(
            self.patches, source=Subset(self.patches.source, rows), pairs=some, read=None
        )
        columns = {name: column[rows] for name, column in self.columns.items()}
        return dataclasses.replace(self, patches=patches, ids=self.ids[rows], columns=columns)


def load_task_dataset(
    task: str, name: str, data_dir: str, split: str, bands: Sequence[str]
) -> TaskDataset:
    """Opens a split for a task; see `data.open_patches`.

    Raises:
      InputError: it cannot be opened, or has no labels of this task.
    """
    one = TASKS[task]
    patches = load_patch_dataset(name, data_dir, split, bands, units=tuple(TO_DB), also=one.fields)
    classes, picked = one.classes(patches), one.pick(patches)
    ids = np.array(patches.ids())
    if len(ids) != len(patches.source):
        raise InputError(
            f"{patches.name} holds {len(patches.source)} records and lists {len(ids)} ids in "
            f"{patches.folder}: build it again"
        )
    columns = one.columns(patches, ids)
    return TaskDataset(task, picked, one.ids(ids, columns), columns, classes)


def take_label_fraction(
    whole: TaskDataset, share: float, seed: int, *, all_classes: bool
) -> TaskDataset:
    """A stratified part of the labels; smaller ones are parts of larger ones of the same seed.

    Args:
      whole: the split.
      share: of the units that labels are given to.
      seed: of the choice.
      all_classes: whether a class that is left without a record is an error, or a warning.

    Raises:
      InputError: a class is left without a record.
    """
    check_fraction(share)
    if share == 1:
        return whole
    units = TASKS[whole.task].units(whole.patches)
    chosen = choose_fraction(units.labels, share, seed)
    lost = missing_classes(units.labels, chosen, whole.classes)
    named = ", ".join(lost) or "anything"
    message = f"label_fraction={share:g} leaves no record of {named} in {whole.patches.name}"
    if not chosen.any() or (lost and all_classes):
        raise InputError(f"{message}: choose a larger one")
    if lost:
        logging.warning("%s: their metrics are undefined", message)
    return whole.chosen(np.flatnonzero(chosen[units.of]))


def make_predictions(
    of: TaskDataset, made: dict[str, np.ndarray], about: dict[str, Any]
) -> Predictions:
    """What a model said of a split.

    Args:
      of: the split.
      made: (records, …) "logits" and "labels", in its order.
      about: for whoever reads it.
    """
    return Predictions(
        of.task, of.classes, of.ids, made["logits"], made["labels"], of.columns, about
    )
