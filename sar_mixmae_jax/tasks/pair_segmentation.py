"""Segmentation of the second of two dates."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from sar_mixmae_jax.data.date_pairs import PairSource, pair_ids
from sar_mixmae_jax.data.patch_dataset import PatchDataset
from sar_mixmae_jax.models.segmenter import COMBINATIONS
from sar_mixmae_jax.tasks.registry import register_task
from sar_mixmae_jax.tasks.segmentation import Segmentation
from sar_mixmae_jax.tasks.segmentation_metrics import PARTS
from sar_mixmae_jax.utils.errors import InputError


@register_task
class PairSegmentation(Segmentation):
    """Class of every pixel on the second of two dates."""

    name = "pair_segmentation"
    recipe: ClassVar = {
        **Segmentation.recipe,
        "segmentation": {**Segmentation.recipe["segmentation"], "combine": COMBINATIONS[0]},
    }
    images = ("before", "after")

    @property
    def label_field(self) -> str:
        """Name of the mask of the second date in the records of `PairSource`."""
        return "labels"

    def _image_numbers(self, dataset: PatchDataset) -> np.ndarray:
        assert dataset.pairs is not None
        return dataset.pairs["after"]

    def load_records(self, dataset: PatchDataset) -> PatchDataset:
        """Return the dataset with its pairs as records, labelled by the mask of the second date.

        Raises:
          InputError: it has none.
        """
        single = super().load_records(dataset)
        if dataset.pairs is None:
            raise InputError(
                f"{dataset.name} has no pairs of dates: choose task=segmentation, or a dataset "
                "that has, such as flood_pairs"
            )
        pairs = PairSource(single.source, dataset.pairs, self.settings.mask)
        return dataclasses.replace(single, source=pairs, pairs=dataset.pairs)

    def columns(self, dataset: PatchDataset, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Return the ids of both dates, the group and the hard case of the pairs."""
        assert dataset.pairs is not None
        columns = {name: dataset.pairs[name] for name in ("group", *PARTS) if name in dataset.pairs}
        return columns | {date: ids[dataset.pairs[date]] for date in self.images}

    def record_ids(self, ids: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the id of each pair: "before > after"."""
        return np.array(pair_ids(columns["before"], columns["after"]))
