"""Downstream measurement of encoders: datasets, labels of each seed, predictions of the test split.

Labels and order of the records of a seed are the same for every encoder.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.experiments.baselines import Splits
from sar_mixmae_jax.experiments.programs import Compilers
from sar_mixmae_jax.experiments.reconstruction_metrics import Metrics
from sar_mixmae_jax.experiments.seed_training import (
    Records,
    load_records,
    predict_seeds,
    prepare_prediction,
    stacked_shapes,
)
from sar_mixmae_jax.experiments.trials import TEST
from sar_mixmae_jax.tasks.base import LabelUnits, Task
from sar_mixmae_jax.tasks.segmentation_baselines import BASELINES as TITLES
from sar_mixmae_jax.tasks.supervised import FinetuneObjective, param_shapes, predict_outputs
from sar_mixmae_jax.tasks.task_dataset import (
    TaskDataset,
    choose_fraction,
    load_task_dataset,
    make_predictions,
)
from sar_mixmae_jax.training.train_step import CacheablePartial


class LabelledSplit:
    """Labelled records of a split, and those that each seed may use.

    Attributes:
      dataset: the whole split.
    """

    def __init__(self, dataset: TaskDataset) -> None:
        """Wrap a split."""
        self.dataset = dataset

    @cached_property
    def _units(self) -> LabelUnits:
        return self.dataset.task.label_units(self.dataset.patches)

    def rows(self, fraction: float, seed: int) -> np.ndarray:
        """Return the numbers of the records that keep their labels."""
        chosen = choose_fraction(self._units.labels, fraction, seed)
        return np.flatnonzero(chosen[self._units.unit_of_record])

    def subset(self, fraction: float, seed: int) -> TaskDataset:
        """Return the records that keep their labels."""
        return self.dataset.subset(self.rows(fraction, seed))


class Measurement(ABC):
    """A task with a fraction of the labels, for encoders of one architecture.

    Attributes:
      name: in the configuration.
      config: configuration of its training, see `configs/finetune.py`.
      objective: model, preprocessing and loss.
    """

    def __init__(
        self,
        name: str,
        config: ConfigDict,
        objective: FinetuneObjective,
        seeds: int,
        shared: dict[Any, Records],
    ) -> None:
        """Open the splits.

        Args:
          name: in the configuration of the comparison.
          config: complete.
          objective: objective of the task.
          seeds: number of seeds of the comparison.
          shared: records on the device, which measurements share; filled.

        Raises:
          InputError: a split cannot be opened.
        """
        self.name, self.config, self.objective = name, config, objective
        self._seeds, self._shared = seeds, shared
        load = partial(load_split, objective.task, config)
        self._training = LabelledSplit(load(config.train_split))
        self._validation = LabelledSplit(load(config.validation_split))
        self._test = load(TEST)

    @abstractmethod
    def evaluate(self, encoders: Any, seeds: Sequence[int]) -> list[Callable[[], Predictions]]:
        """Compute what needs the device.

        Args:
          encoders: parameters of the encoders of the seeds, (seed, …).
          seeds: seeds of the encoders, for labels, order of records and head.

        Returns:
          For each seed, a function that computes the predictions of the test split, mostly on the
          host; it may be called in another thread.
        """

    @abstractmethod
    def prepare(self, compilers: Compilers, seeds: int) -> None:
        """Start compiling the programs for this number of seeds."""

    @property
    def task(self) -> Task:
        """The task."""
        return self.objective.task

    def training_rows(self, seed: int) -> np.ndarray:
        """Return the numbers of the training records of a seed."""
        return self._training.rows(self.config.label_fraction, seed)

    @property
    def labels_key(self) -> tuple[Any, ...]:
        """Task, dataset and fraction: measurements with equal ones have equal labels."""
        return self.task.name, self.config.dataset, self.config.label_fraction

    def splits(self, seed: int) -> Splits:
        """Return the records of a seed for training and validation, and the test split."""
        fraction = self.config.label_fraction
        validation = self._validation.subset(fraction, seed)
        return self._training.subset(fraction, seed), validation, self._test

    def pixel_baselines(self, predictions: Predictions, seed: int) -> dict[str, Metrics]:
        """Return the metrics of the baselines of a segmentation by title.

        Args:
          predictions: predictions of the test split, for the pixels without a measurement.
          seed: random seed of the labels that the regression is fitted to.
        """
        training = self.splits(seed)[0]
        matrices = self.task.baselines(
            self._test.patches, lambda: (training.patches, self.task.label_field)
        )
        arrays = {**predictions.arrays, **matrices}
        rates = self.task.metrics(dataclasses.replace(predictions, arrays=arrays))["baselines"]
        return {
            TITLES[name]: {score: rates[name].get(score) for score in self.task.score_titles}
            for name in matrices
        }

    # ---- of the kinds of measurements

    def predictions(self, outputs: dict[str, np.ndarray], seed: int) -> Predictions:
        """Return the predictions of a seed from results for the test split."""
        about = {"split": TEST, "seed": seed, "dataset": self.config.dataset}
        return make_predictions(self._test, outputs, about)

    def predict(self, params: Any, *, in_turn: bool = False) -> dict[str, np.ndarray]:
        """Return the results for the test split, (seed, record, …) by name."""
        return predict_seeds(
            params,
            self.test_records,
            CacheablePartial(predict_outputs, self.objective),
            self.task.eval_batch_size,
            leave_out=self.task.extra_arrays,
            in_turn=in_turn,
        )

    def prepare_to_predict(
        self, compilers: Compilers, seeds: int, *, in_turn: bool = False
    ) -> None:
        """Start compiling what `predict` calls."""
        prepare_prediction(
            compilers,
            stacked_shapes(param_shapes(self.objective), seeds),
            self.test_records,
            CacheablePartial(predict_outputs, self.objective),
            self.task.eval_batch_size,
            leave_out=self.task.extra_arrays,
            in_turn=in_turn,
        )

    def encode(
        self, encoders: Any, function: Callable[..., Any], splits: Sequence[Records]
    ) -> list[dict[str, np.ndarray]]:
        """Return the results of a function of {"encoder"} for splits, (seed, record, …) by name."""
        encode = CacheablePartial(function, self.objective)
        return [
            predict_seeds({"encoder": encoders}, records, encode, self.task.eval_batch_size)
            for records in splits
        ]

    def prepare_to_encode(
        self,
        compilers: Compilers,
        seeds: int,
        function: Callable[..., Any],
        splits: Sequence[Records],
    ) -> None:
        """Start compiling what `encode` calls."""
        encode = CacheablePartial(function, self.objective)
        params = stacked_shapes({"encoder": param_shapes(self.objective)["encoder"]}, seeds)
        for records in splits:
            prepare_prediction(compilers, params, records, encode, self.task.eval_batch_size)

    def used_rows(self, seed: int) -> np.ndarray:
        """Return the rows of `training_records` that a seed uses."""
        return np.searchsorted(self._used_rows, self.training_rows(seed))

    def validation_rows(self, seed: int) -> np.ndarray:
        """Return the rows of `validation_records` that a seed uses."""
        return self._validation.rows(self.config.label_fraction, seed)

    @cached_property
    def _used_rows(self) -> np.ndarray:
        """Numbers of the training records that any seed uses, in order."""
        return np.unique(np.concatenate([self.training_rows(s) for s in range(self._seeds)]))

    @cached_property
    def training_records(self) -> Records:
        """Training records that any seed uses."""
        return self._load(self._training.dataset, self._used_rows)

    @cached_property
    def validation_records(self) -> Records:
        """All records of the validation split."""
        return self._load(self._validation.dataset)

    @cached_property
    def test_records(self) -> Records:
        """All records of the test split."""
        return self._load(self._test)

    def _load(self, split: TaskDataset, rows: np.ndarray | None = None) -> Records:
        """Return records on the device, those of another measurement where they are the same."""
        source = split.patches.source
        rows = np.arange(len(source)) if rows is None else rows
        fields = tuple(source[0])
        key = (split.patches.name, fields, rows.tobytes())
        if key not in self._shared:
            self._shared[key] = load_records(source, rows)
        return self._shared[key]


def load_split(task: Task, config: ConfigDict, split: str) -> TaskDataset:
    """Open a split for a measurement with this configuration."""
    return load_task_dataset(task, config.dataset, config.data_dir, split, config.bands)
