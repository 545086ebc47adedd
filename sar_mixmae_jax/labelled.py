"""Records with labels, as a task sees them, and what a model said of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from sar_mixmae_jax import fraction
from sar_mixmae_jax.data import Patches, Subset, open_patches
from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.radiometry import TO_DB
from sar_mixmae_jax.tasks import TASKS


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A split of a dataset for a task.

    Attributes:
      task: an entry of `TASKS`.
      patches: whose source gives the records of the task.
      ids: (records,) of them.
      columns: (records,) each: what is known of them besides; "group" says what is independent.
      classes: names of the labels.
    """

    task: str
    patches: Patches
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

    def chosen(self, rows: np.ndarray) -> "Labelled":
        """Some of the records, by their numbers."""
        pairs = self.patches.pairs
        some = None if pairs is None else {name: column[rows] for name, column in pairs.items()}
        patches = dataclasses.replace(
            self.patches, source=Subset(self.patches.source, rows), pairs=some, read=None
        )
        columns = {name: column[rows] for name, column in self.columns.items()}
        return dataclasses.replace(self, patches=patches, ids=self.ids[rows], columns=columns)


def open_labelled(
    task: str, name: str, data_dir: str, split: str, bands: Sequence[str]
) -> Labelled:
    """Opens a split for a task; see `data.open_patches`.

    Raises:
      InputError: it cannot be opened, or has no labels of this task.
    """
    one = TASKS[task]
    patches = open_patches(name, data_dir, split, bands, units=tuple(TO_DB), also=one.fields)
    classes, picked = one.classes(patches), one.pick(patches)
    ids = np.array(patches.ids())
    if len(ids) != len(patches.source):
        raise InputError(
            f"{patches.name} holds {len(patches.source)} records and lists {len(ids)} ids in "
            f"{patches.folder}: build it again"
        )
    columns = one.columns(patches, ids)
    return Labelled(task, picked, one.ids(ids, columns), columns, classes)


def part(whole: Labelled, share: float, seed: int, *, all_classes: bool) -> Labelled:
    """A stratified part of the labels; smaller ones are parts of larger ones of the same seed.

    Args:
      whole: the split.
      share: of the units that labels are given to.
      seed: of the choice.
      all_classes: whether a class that is left without a record is an error, or a warning.

    Raises:
      InputError: a class is left without a record.
    """
    fraction.check_fraction(share)
    if share == 1:
        return whole
    units = TASKS[whole.task].units(whole.patches)
    chosen = fraction.choose(units.labels, share, seed)
    lost = fraction.emptied(units.labels, chosen, whole.classes)
    named = ", ".join(lost) or "anything"
    message = f"label_fraction={share:g} leaves no record of {named} in {whole.patches.name}"
    if not chosen.any() or (lost and all_classes):
        raise InputError(f"{message}: choose a larger one")
    if lost:
        logging.warning("%s: their metrics are undefined", message)
    return whole.chosen(np.flatnonzero(chosen[units.of]))


def predictions(of: Labelled, made: dict[str, np.ndarray], about: dict[str, Any]) -> Predictions:
    """What a model said of a split.

    Args:
      of: the split.
      made: (records, …) "logits" and "labels", in its order.
      about: for whoever reads it.
    """
    return Predictions(
        of.task, of.classes, of.ids, made["logits"], made["labels"], of.columns, about
    )
