"""Kinds of measurements: fine-tuning, and linear layers on frozen features of images or pixels.

In fine-tuning nothing is selected: the last step counts. Rate or penalty of a linear layer are
chosen on the validation split.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.experiments.measurement import Measurement, load_split
from sar_mixmae_jax.experiments.pixel_probe import (
    encode_tokens,
    fit_head,
    is_linear_on_pixels,
    select_records,
)
from sar_mixmae_jax.experiments.programs import Compilers
from sar_mixmae_jax.experiments.seed_training import (
    InitFn,
    Records,
    host_device,
    initial_states,
    prepare_training,
    seed_batches,
    select_seed,
    stack,
    train_seeds,
)
from sar_mixmae_jax.tasks.registry import task_for_dataset
from sar_mixmae_jax.tasks.supervised import encode_features, init_model_params, param_shapes
from sar_mixmae_jax.training import finetune
from sar_mixmae_jax.training.downstream import (
    choose_bands,
    complete_config,
    make_finetune_objective,
)
from sar_mixmae_jax.training.feature_cache import FeatureCache
from sar_mixmae_jax.training.probe_heads import fit_linear
from sar_mixmae_jax.training.setup import RunSetup
from sar_mixmae_jax.training.train_step import TrainState


class FineTuning(Measurement):
    """Training of encoder and head."""

    def __init__(self, setup: RunSetup, *arguments: Any) -> None:
        """Open the splits.

        Args:
          setup: set-up of a run of fine-tuning.
          *arguments: of `Measurement`.
        """
        super().__init__(*arguments)
        self._setup = setup
        self._states: dict[tuple[int, ...], TrainState] = {}  # before training, by seeds

    def evaluate(self, encoders: Any, seeds: Sequence[int]) -> list[Callable[[], Predictions]]:
        """Train, and predict the test split; see `Measurement`."""
        key, setup = tuple(seeds), self._setup
        if key not in self._states:
            self._states[key] = initial_states(self._init_params, setup.optimizer, seeds)
        states = self._states[key]
        trained, _ = train_seeds(
            dataclasses.replace(states, params={**states.params, "encoder": encoders}),
            self._batches(seeds),
            self.training_records,
            setup.loss_fn,
            setup.optimizer,
            self.name,
            in_turn=self._in_turn,
        )
        outputs = self.predict(trained.params, in_turn=self._in_turn)
        return [
            partial(self.predictions, select_seed(outputs, number), seed)
            for number, seed in enumerate(seeds)
        ]

    def prepare(self, compilers: Compilers, seeds: int) -> None:
        """Start compiling training and prediction; see `Measurement`."""
        prepare_training(
            compilers,
            self._init_params,
            seeds,
            self.config.batch_size,
            self.training_records,
            self._setup.loss_fn,
            self._setup.optimizer,
            in_turn=self._in_turn,
        )
        self.prepare_to_predict(compilers, seeds, in_turn=self._in_turn)

    @property
    def _in_turn(self) -> bool:
        """True for the decoders of pixels, which have convolutions."""
        return self.task.labels_per_pixel

    @property
    def _init_params(self) -> InitFn:
        return partial(init_model_params, self.objective)

    def _batches(self, seeds: Sequence[int]) -> np.ndarray:
        """Rows of `training_records`, (step, seed, batch)."""
        rows, config = [self.used_rows(seed) for seed in seeds], self.config
        return seed_batches(rows, seeds, config.batch_size, range(config.total_steps))


class ImageProbe(Measurement):
    """Linear layer on the frozen features of images."""

    def evaluate(self, encoders: Any, seeds: Sequence[int]) -> list[Callable[[], Predictions]]:
        """Encode all records; the layer is fitted on the host; see `Measurement`."""
        splits = self.encode(encoders, encode_features, self._splits)
        return [
            partial(self._fit, [select_seed(split, number) for split in splits], seed)
            for number, seed in enumerate(seeds)
        ]

    def prepare(self, compilers: Compilers, seeds: int) -> None:
        """Start compiling the encoder; see `Measurement`."""
        self.prepare_to_encode(compilers, seeds, encode_features, self._splits)

    @property
    def _splits(self) -> tuple[Records, Records, Records]:
        return self.training_records, self.validation_records, self.test_records

    def _fit(self, splits: list[dict[str, np.ndarray]], seed: int) -> Predictions:
        training, validation, test = splits
        config = self.config.copy_and_resolve_references()
        with config.unlocked():
            config.seed = seed  # of the batches
        labelled, held_out, _ = self.splits(seed)
        with jax.default_device(host_device()):  # steps are too small for an accelerator
            head = fit_linear(
                config,
                labelled,
                held_out,
                _features(training, self.used_rows(seed)),
                _features(validation, self.validation_rows(seed)),
            )
        logits = test["features"] @ head.params["kernel"] + head.params["bias"]
        return self.predictions({"logits": logits, "labels": test["labels"]}, seed)


class PixelProbe(Measurement):
    """Linear layer on the maps of a frozen encoder."""

    def evaluate(self, encoders: Any, seeds: Sequence[int]) -> list[Callable[[], Predictions]]:
        """Encode tokens; what follows waits for the fit on the host; see `Measurement`."""
        splits = self.encode(encoders, encode_tokens, self._splits)
        encoders = jax.device_get(encoders)
        return [
            partial(
                self._fit,
                select_seed(encoders, number),
                [select_seed(split, number) for split in splits],
                seed,
            )
            for number, seed in enumerate(seeds)
        ]

    def _fit(self, encoder: Any, splits: list[dict[str, np.ndarray]], seed: int) -> Predictions:
        training, validation = splits
        head = fit_head(
            param_shapes(self.objective)["head"],
            select_records(training, self.used_rows(seed)),
            select_records(validation, self.validation_rows(seed)),
        )
        outputs = self.predict(stack([{"encoder": encoder, "head": head}]))
        return self.predictions(select_seed(outputs, 0), seed)

    def prepare(self, compilers: Compilers, seeds: int) -> None:
        """Start compiling encoder and prediction; see `Measurement`."""
        self.prepare_to_encode(compilers, seeds, encode_tokens, self._splits)
        self.prepare_to_predict(compilers, 1)

    @property
    def _splits(self) -> tuple[Records, Records]:
        return self.training_records, self.validation_records


def open_measurement(config: ConfigDict, name: str, shared: dict[Any, Records]) -> Measurement:
    """Open the datasets of a measurement.

    Args:
      config: configuration of the comparison.
      name: name of the measurement.
      shared: records on the device, which measurements share; filled.

    Raises:
      InputError: a dataset cannot be opened, or the configuration cannot be used.
    """
    run = measurement_config(config, name)
    if run.trainer == "probe":
        run, _ = choose_bands(run, None)
        patches = load_patch_dataset(run.dataset, run.data_dir, run.train_split, run.bands)
        task = task_for_dataset(patches)
        run = complete_config(run, task)
        objective = make_finetune_objective(run, None, load_split(task, run, run.train_split))
        return ImageProbe(name, run, objective, config.seeds, shared)
    setup = finetune.set_up(run, Path())
    arguments = name, run, setup.loss_fn.settings, config.seeds, shared  # type: ignore[attr-defined]
    if is_linear_on_pixels(run):
        return PixelProbe(*arguments)
    return FineTuning(setup, *arguments)


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


def _features(outputs: dict[str, np.ndarray], rows: np.ndarray) -> FeatureCache:
    return FeatureCache(rows.astype(str), outputs["features"][rows], outputs["labels"][rows])
