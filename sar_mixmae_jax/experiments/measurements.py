"""Downstream measurements of encoders: fine-tuning or a frozen encoder, for all seeds at once.

Labels, order of records and head of a seed are the same for every encoder. In fine-tuning nothing
is selected: the last step counts. The rate of a linear layer is chosen on the validation split.
"""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.experiments.baselines import Splits
from sar_mixmae_jax.experiments.reconstruction_metrics import Metrics
from sar_mixmae_jax.experiments.seed_training import (
    InitFn,
    Records,
    add_axis,
    host_device,
    initial_states,
    load_records,
    predict_seeds,
    prepare_prediction,
    prepare_training,
    select_seed,
    train_seeds,
)
from sar_mixmae_jax.experiments.trials import TEST
from sar_mixmae_jax.tasks.base import LabelUnits, Task
from sar_mixmae_jax.tasks.registry import task_for_dataset
from sar_mixmae_jax.tasks.segmentation_baselines import BASELINES as TITLES
from sar_mixmae_jax.tasks.supervised import (
    FinetuneObjective,
    encode_features,
    init_model_params,
    param_shapes,
    predict_outputs,
)
from sar_mixmae_jax.tasks.task_dataset import (
    TaskDataset,
    choose_fraction,
    load_task_dataset,
    make_predictions,
)
from sar_mixmae_jax.training import finetune
from sar_mixmae_jax.training.downstream import (
    choose_bands,
    complete_config,
    make_finetune_objective,
)
from sar_mixmae_jax.training.feature_cache import FeatureCache
from sar_mixmae_jax.training.probe_heads import fit_linear
from sar_mixmae_jax.training.setup import RunSetup
from sar_mixmae_jax.training.train_step import CacheablePartial, TrainState


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


class Measurement:
    """A task with a fraction of the labels, for encoders of one architecture.

    Attributes:
      name: in the configuration.
      config: of its training, see `configs/finetune.py`; `trainer` is "probe" for linear layers on
        the features of a frozen encoder.
    """

    def __init__(self, config: ConfigDict, name: str, shared: dict[Any, Records]) -> None:
        """Open the datasets.

        Args:
          config: of the comparison.
          name: of the measurement.
          shared: records on the device, which measurements share; filled.

        Raises:
          InputError: a dataset cannot be opened, or the configuration cannot be used.
        """
        self.name, self._seeds, self._shared = name, config.seeds, shared
        self.config = measurement_config(config, name)
        self._setup: RunSetup | None = None
        self._states: dict[tuple[int, ...], TrainState] = {}  # before training, by seeds
        if self.frozen_features:
            self.config, self._objective = set_up_probe(self.config)
        else:
            self._setup = finetune.set_up(self.config, Path())
            self._objective = self._setup.loss_fn.settings  # type: ignore[attr-defined]
        load = partial(_load, self._objective.task, self.config)
        self._training = LabelledSplit(load(self.config.train_split))
        self._validation = LabelledSplit(load(self.config.validation_split))
        self._test = load(TEST)

    @property
    def frozen_features(self) -> bool:
        """True if only a linear layer on features is trained."""
        return self.config.trainer == "probe"

    @property
    def task(self) -> Task:
        """The task."""
        return self._objective.task

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
          predictions: of the test split, for the pixels without a measurement.
          seed: of the labels that the regression is fitted to.
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

    def evaluate(self, encoders: Any, seeds: Sequence[int]) -> list[Callable[[], Predictions]]:
        """Compute what needs the device: train with every encoder, or encode all records.

        Args:
          encoders: parameters of the encoders of the seeds, (seed, …).
          seeds: of the encoders, for labels, order of records and head.

        Returns:
          For each seed, a function that computes the predictions of the test split on the host.
        """
        if self.frozen_features:
            splits = self._encode(encoders)
            return [
                partial(self._probe, [select_seed(split, number) for split in splits], seed)
                for number, seed in enumerate(seeds)
            ]
        outputs = self._finetune(encoders, seeds)
        return [
            partial(self._predictions, select_seed(outputs, number), seed)
            for number, seed in enumerate(seeds)
        ]

    def _predictions(self, outputs: dict[str, np.ndarray], seed: int) -> Predictions:
        about = {"split": TEST, "seed": seed, "dataset": self.config.dataset}
        return make_predictions(self._test, outputs, about)

    # ---- fine-tuning

    def _finetune(self, encoders: Any, seeds: Sequence[int]) -> dict[str, np.ndarray]:
        setup, objective = self._setup, self._objective
        assert setup is not None
        key = tuple(seeds)
        if key not in self._states:
            self._states[key] = initial_states(self._init_params, setup.optimizer, seeds)
        states = self._states[key]
        trained, _ = train_seeds(
            dataclasses.replace(states, params={**states.params, "encoder": encoders}),
            self._batches(seeds),
            self._training_records,
            setup.loss_fn,
            setup.optimizer,
            self.name,
            in_turn=self._in_turn,
        )
        return predict_seeds(
            trained.params,
            self._test_records,
            CacheablePartial(predict_outputs, objective),
            self.task.eval_batch_size,
            leave_out=self.task.extra_arrays,
            in_turn=self._in_turn,
        )

    def prepare(self, pool: ThreadPoolExecutor, seeds: Sequence[int]) -> None:
        """Start compiling the programs of some seeds."""
        if self._setup is None:
            encode = CacheablePartial(encode_features, self._objective)
            encoders = {"encoder": param_shapes(self._objective)["encoder"]}
            for records in self._encoded_records:
                prepare_prediction(
                    pool, add_axis(encoders, len(seeds)), records, encode, self.task.eval_batch_size
                )
            return
        prepare_training(
            pool,
            self._init_params,
            len(seeds),
            self.config.batch_size,
            self._training_records,
            self._setup.loss_fn,
            self._setup.optimizer,
            in_turn=self._in_turn,
        )
        prepare_prediction(
            pool,
            add_axis(param_shapes(self._objective), len(seeds)),
            self._test_records,
            CacheablePartial(predict_outputs, self._objective),
            self.task.eval_batch_size,
            leave_out=self.task.extra_arrays,
            in_turn=self._in_turn,
        )

    @property
    def _in_turn(self) -> bool:
        """True for decoders of pixels, which have convolutions."""
        return self.task.labels_per_pixel

    @property
    def _init_params(self) -> InitFn:
        return partial(init_model_params, self._objective)

    def _batches(self, seeds: Sequence[int]) -> np.ndarray:
        """Rows of `_training_records`, (step, seed, batch)."""
        steps, size = self.config.total_steps, self.config.batch_size
        batches = []
        for seed in seeds:
            rows = np.searchsorted(self._used_rows, self.training_rows(seed))
            sampler = ShuffleSampler(len(rows), size, seed)
            batches.append([rows[sampler.batch(step)] for step in range(steps)])
        return np.array(batches).swapaxes(0, 1)

    @cached_property
    def _used_rows(self) -> np.ndarray:
        """Numbers of the training records that any seed uses, in order."""
        return np.unique(np.concatenate([self.training_rows(s) for s in range(self._seeds)]))

    @cached_property
    def _training_records(self) -> Records:
        return self._load(self._training.dataset, self._used_rows)

    @cached_property
    def _test_records(self) -> Records:
        return self._load(self._test)

    # ---- linear layers on frozen features

    def _encode(self, encoders: Any) -> list[dict[str, np.ndarray]]:
        """Return features and labels of `_encoded_records`, (seed, record, …) by name."""
        encode = CacheablePartial(encode_features, self._objective)
        return [
            predict_seeds({"encoder": encoders}, records, encode, self.task.eval_batch_size)
            for records in self._encoded_records
        ]

    def _probe(self, splits: list[dict[str, np.ndarray]], seed: int) -> Predictions:
        """Fit a linear layer to the features of a seed; its rate is chosen on validation."""
        training, validation, test = splits
        chosen = self.training_rows(seed)
        known = self._validation.rows(self.config.label_fraction, seed)
        config = self.config.copy_and_resolve_references()
        with config.unlocked():
            config.seed = seed  # of the batches
        with jax.default_device(host_device()):  # steps are too small for an accelerator
            head = fit_linear(
                config,
                self._training.dataset.subset(chosen),
                self._validation.dataset.subset(known),
                _features(training, np.searchsorted(self._used_rows, chosen)),
                _features(validation, known),
            )
        logits = test["features"] @ head.params["kernel"] + head.params["bias"]
        return self._predictions({"logits": logits, "labels": test["labels"]}, seed)

    @property
    def _encoded_records(self) -> tuple[Records, Records, Records]:
        """Records of training, validation and test."""
        return self._training_records, self._validation_records, self._test_records

    @cached_property
    def _validation_records(self) -> Records:
        return self._load(self._validation.dataset)

    def _load(self, split: TaskDataset, rows: np.ndarray | None = None) -> Records:
        """Return records on the device, those of another measurement where they are the same."""
        source = split.patches.source
        rows = np.arange(len(source)) if rows is None else rows
        fields = tuple(source[0])
        key = (split.patches.name, fields, rows.tobytes())
        if key not in self._shared:
            self._shared[key] = load_records(source, rows)
        return self._shared[key]


def measurement_config(config: ConfigDict, name: str) -> ConfigDict:
    """Return the configuration of a measurement, for encoders of the comparison."""
    run = config.finetune[name].copy_and_resolve_references()
    run.data_dir, run.seed, run.label_seed = config.data_dir, 0, 0
    run.init, run.validation = "random", "split" if run.trainer == "probe" else "none"
    run.statistics = config.pretrain.dataset  # of the pretrained encoders
    run.bands = config.pretrain.bands
    for field, value in config.pretrain.model.items():
        if field in run.model:
            run.model[field] = value
    return run.lock()


def set_up_probe(config: ConfigDict) -> tuple[ConfigDict, FinetuneObjective]:
    """Return the complete configuration of a probe, and model and preprocessing."""
    config, _ = choose_bands(config, None)
    patches = load_patch_dataset(config.dataset, config.data_dir, config.train_split, config.bands)
    task = task_for_dataset(patches)
    config = complete_config(config, task)
    return config, make_finetune_objective(config, None, _load(task, config, config.train_split))


def _load(task: Task, config: ConfigDict, split: str) -> TaskDataset:
    return load_task_dataset(task, config.dataset, config.data_dir, split, config.bands)


def _features(outputs: dict[str, np.ndarray], rows: np.ndarray) -> FeatureCache:
    return FeatureCache(rows.astype(str), outputs["features"][rows], outputs["labels"][rows])
