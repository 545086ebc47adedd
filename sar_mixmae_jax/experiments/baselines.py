"""Baselines without a network, by task, and their metrics on the test split.

A test on which they reach the networks does not discriminate between pretraining methods, see
`seed_statistics.discrimination`.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import batches
from sar_mixmae_jax.data.sampler import SequentialSampler
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.experiments.classical_baselines import (
    EDGES,
    band_statistics,
    change_statistics,
    fit_logistic,
    fit_otsu,
    log_ratio_histogram,
    new_water_fraction,
    otsu_threshold,
    predict_logistic,
    predict_otsu,
    two_class_logits,
    water_level,
)
from sar_mixmae_jax.experiments.reconstruction_metrics import Metrics
from sar_mixmae_jax.experiments.trials import TEST, flat_metrics
from sar_mixmae_jax.objectives.radiometry import TO_DB
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.task_dataset import (
    TaskDataset,
    load_task_dataset,
    make_predictions,
    take_label_fraction,
)

BATCH_SIZE = 32

Splits = tuple[TaskDataset, TaskDataset, TaskDataset]
"""Training, validation and test split."""

DecibelBatch = dict[str, np.ndarray]
"""A batch of records, images in dB."""


def load_baseline_splits(config: ConfigDict, task: str, seed: int) -> Splits:
    """Load the splits of a task with the labels that fine-tuning with this seed uses."""
    run = config.finetune[task]
    bands = run.bands or config.pretrain.bands

    def load(split: str) -> TaskDataset:
        return load_task_dataset(get_task(run.task), run.dataset, config.data_dir, split, bands)

    training, validation = (
        take_label_fraction(load(split), run.label_fraction, seed, all_classes=False)
        for split in (run.train_split, run.validation_split)
    )
    return training, validation, load(TEST)


def measure_baselines(config: ConfigDict, task: str) -> dict[str, list[Metrics]]:
    """Return the metrics of every baseline of a task by seed; {} for a task without baselines."""
    by_seed = [
        evaluate_baselines(load_baseline_splits(config, task, seed)) for seed in range(config.seeds)
    ]
    return {name: [metrics[name] for metrics in by_seed] for name in by_seed[0]}


def evaluate_baselines(splits: Splits) -> dict[str, Metrics]:
    """Return the metrics of every baseline by name; {} for a task without baselines."""
    found = BASELINES.get(splits[2].task.name, {})
    return {name: flat_metrics(baseline(splits)) for name, baseline in found.items()}


def logistic_of_images(splits: Splits) -> Predictions:
    """Predict with a logistic regression on the statistics of the bands."""
    train, validation, test = (
        _features(split, lambda batch: band_statistics(batch["backscatter"])) for split in splits
    )
    model = fit_logistic(*train, *validation)
    return _predictions(splits[2], predict_logistic(model, test[0]), test[1])


def logistic_of_changes(splits: Splits) -> Predictions:
    """Predict with a logistic regression on statistics of both dates and of their difference."""
    train, validation, test = (
        _features(split, lambda batch: change_statistics(batch["before"], batch["after"]))
        for split in splits
    )
    model = fit_logistic(train[0], train[1][:, None], validation[0], validation[1][:, None])
    logits = two_class_logits(predict_logistic(model, test[0]))
    return _predictions(splits[2], logits, test[1])


def otsu_on_log_ratio(splits: Splits) -> Predictions:
    """Predict by the fraction of the pixels that became as dark as water."""
    counts = np.zeros(len(EDGES) - 1, int)
    for batch in read_batches(splits[0]):
        flooded = batch["labels"] == 1
        counts += log_ratio_histogram(batch["before"][flooded], batch["after"][flooded])
    threshold, water_db = otsu_threshold(counts), water_level(splits[0].patches.bands)
    train, validation, test = (
        _features(split, partial(_new_water, threshold=threshold, water_db=water_db))
        for split in splits
    )
    model = fit_otsu(threshold, *train, *validation)
    return _predictions(splits[2], predict_otsu(model, test[0]), test[1])


def label_frequency(splits: Splits) -> Predictions:
    """Predict the frequency of every label in the training split, whatever the image."""
    labels = _labels(splits[0])
    frequency = (labels.sum(0) + 0.5) / (len(labels) + 1)
    test = _labels(splits[2])
    logits = np.tile(np.log(frequency / (1 - frequency)), (len(test), 1)).astype(np.float32)
    return _predictions(splits[2], logits, test)


def always_flood(splits: Splits) -> Predictions:
    """Predict a flood for every image."""
    test = _labels(splits[2])
    return _predictions(splits[2], two_class_logits(np.ones(len(test))), test)


BASELINES: dict[str, dict[str, Callable[[Splits], Predictions]]] = {
    "classification": {
        "logistic regression on band statistics": logistic_of_images,
        "frequency of the labels": label_frequency,
    },
    "flood": {
        "logistic regression on band statistics": logistic_of_changes,
        "Otsu on the log-ratio": otsu_on_log_ratio,
        "always flood": always_flood,
    },
}
"""By task and name."""


def read_batches(split: TaskDataset) -> Iterator[DecibelBatch]:
    """Yield all records in order, in dB; the last batch is padded with repeated records."""
    sampler, to_db = SequentialSampler(len(split), BATCH_SIZE), TO_DB[split.patches.unit]
    for batch in batches(split.patches.source, sampler, 0, sampler.steps):
        yield batch | {name: np.asarray(to_db(batch[name])) for name in split.task.images}


def _features(
    split: TaskDataset, extract: Callable[[DecibelBatch], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return features (records, inputs) and labels (records, …) of a split."""
    parts = [(extract(batch), batch["labels"]) for batch in read_batches(split)]
    features, labels = (np.concatenate(column)[: len(split)] for column in zip(*parts, strict=True))
    return features, labels


def _labels(split: TaskDataset) -> np.ndarray:
    return np.concatenate([batch["labels"] for batch in read_batches(split)])[: len(split)]


def _new_water(batch: DecibelBatch, threshold: float, water_db: float) -> np.ndarray:
    return new_water_fraction(batch["before"], batch["after"], threshold, water_db)


def _predictions(split: TaskDataset, logits: np.ndarray, labels: np.ndarray) -> Predictions:
    return make_predictions(split, {"logits": logits, "labels": labels}, {})
