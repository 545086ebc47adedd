"""A baseline without any network: logistic regression on the band statistics of an image.

Where it does as well as the encoders, the test discriminates nothing (`comparison/statistics.py`).
The other one is for floods alone, `comparison/darkening.py`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from sar_mixmae_jax.data.patch_dataset import batches
from sar_mixmae_jax.data.sampler import SequentialSampler
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.experiments import otsu_baseline
from sar_mixmae_jax.experiments.otsu_baseline import two_classes
from sar_mixmae_jax.experiments.stages import TEST, Metrics, flat_metrics
from sar_mixmae_jax.objectives.radiometry import TO_DB
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.task_dataset import (
    TaskDataset,
    load_task_dataset,
    make_predictions,
    take_label_fraction,
)

PERCENTILES = (5, 25, 50, 75, 95)
COLUMNS = ("mean", "std", *(f"p{percentile:02}" for percentile in PERCENTILES), "measured")
"""What `statistics` says of a band, all but the last in dB."""

REGULARISATIONS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""The values of scikit-learn's C (larger is weaker) that are tried."""

UNCHOSEN = 1.0
"""C where no class of the validation split has positives and negatives: nothing can be chosen."""


class LogisticBaseline(NamedTuple):
    """A fitted logistic regression, one against the rest for every class.

    Attributes:
      mean: (inputs,) of the training split, dB; stands in for a band that was not measured.
      std: (inputs,) of the training split, dB.
      weights: (inputs, classes) for standardised inputs.
      intercept: (classes,).
      regularisation: the C that was chosen.
      validation: average precision on the validation split, mean over the classes that have
        positives and negatives there; None where none has.
      constant: numbers of the classes that are absent from training, or in all of it: their logit
        is that of their prevalence, whatever the image.
    """

    mean: np.ndarray
    std: np.ndarray
    weights: np.ndarray
    intercept: np.ndarray
    regularisation: float
    validation: float | None
    constant: tuple[int, ...]


def band_statistics(backscatter: np.ndarray) -> np.ndarray:
    """Describes images by the distribution of their dB, band by band.

    A band without a valid pixel is 0 in all columns, `measured` included; `fit` and `predict` put
    the mean of the training split in its place, so that it says nothing.

    Args:
      backscatter: (n, height, width, band) dB, nodata not finite.

    Returns:
      (n, band * len(COLUMNS)) float32, the columns of the first band first. Percentiles are
      interpolated linearly.
    """
    count, height, width, bands = backscatter.shape
    values = backscatter.reshape(count, height * width, bands)
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=1)  # NaN goes last
    valid = np.isfinite(ordered)
    pixels = valid.sum(1)  # (n, band)
    known = np.maximum(pixels, 1)
    mean = np.sum(ordered, axis=1, where=valid, dtype=np.float64) / known
    squares = np.square(ordered - mean[:, None])
    std = np.sqrt(np.sum(squares, axis=1, where=valid, dtype=np.float64) / known)
    columns = [mean, std, *(_percentile(ordered, known, q) for q in PERCENTILES), np.ones_like(std)]
    described = np.stack(columns, axis=-1)  # n, band, column
    described = np.where(pixels[..., None] > 0, described, 0.0)
    return described.reshape(count, -1).astype(np.float32)


def _percentile(ordered: np.ndarray, pixels: np.ndarray, percentile: float) -> np.ndarray:
    """(n, band) percentile of the first `pixels` (n, band) values of (n, values, band)."""
    place = percentile / 100 * (pixels - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, pixels - 1)
    below, above = (np.take_along_axis(ordered, at[:, None], 1)[:, 0] for at in (low, high))
    return below + (place - low) * (above - below)


def change_statistics(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Describes pairs: before, after, and the difference of every pixel that both dates measured.

    Args:
      before: (n, height, width, band) dB, nodata not finite.
      after: the same.

    Returns:
      (n, 3 * band * len(COLUMNS)) float32.
    """
    known = np.isfinite(before) & np.isfinite(after)
    difference = np.subtract(after, before, where=known, out=np.full(before.shape, np.nan))
    return np.concatenate(
        [band_statistics(images) for images in (before, after, difference)], axis=1
    )


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    validation_features: np.ndarray,
    validation_labels: np.ndarray,
) -> LogisticBaseline:
    """Fits on the training split and chooses C, one for all classes, on the validation split.

    Args:
      features: (n, columns) of `statistics` or `change_statistics`.
      labels: (n, classes), 1 where a class is present; floods are one class.
      validation_features: as `features`.
      validation_labels: as `labels`.
    """
    values, measured = _inputs(features)
    pixels = np.maximum(measured.sum(0), 1)
    mean = np.sum(values, axis=0, where=measured) / pixels
    std = np.sqrt(np.sum(np.square(values - mean), axis=0, where=measured) / pixels)
    std = np.where(std > 0, std, 1.0)
    inputs = _standardised(features, mean, std)
    present = labels.astype(bool)
    positives = present.sum(0)
    constant = tuple(np.flatnonzero((positives == 0) | (positives == len(present))).tolist())

    def candidate(regularisation: float) -> LogisticBaseline:
        weights = np.zeros((inputs.shape[1], present.shape[1]))
        intercept = np.log((positives + 0.5) / (len(present) - positives + 0.5))
        for number in sorted({*range(present.shape[1])} - {*constant}):
            one = LogisticRegression(C=regularisation, solver="newton-cholesky", max_iter=1000)
            one.fit(inputs, present[:, number])
            weights[:, number], intercept[number] = one.coef_[0], one.intercept_[0]
        fitted = LogisticBaseline(mean, std, weights, intercept, regularisation, None, constant)
        precision = _average_precision(
            validation_labels, predict_logistic(fitted, validation_features)
        )
        return fitted._replace(validation=precision)

    candidates = [candidate(regularisation) for regularisation in REGULARISATIONS]
    chosen = max(candidates, key=lambda one: one.validation or 0.0)  # the strongest of equals
    return candidate(UNCHOSEN) if chosen.validation is None else chosen


def predict_logistic(model: LogisticBaseline, features: np.ndarray) -> np.ndarray:
    """The logits, (n, classes) float32."""
    inputs = _standardised(features, model.mean, model.std)
    return (inputs @ model.weights + model.intercept).astype(np.float32)


def _inputs(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns in dB, (n, inputs), and whether their bands were measured."""
    bands = features.astype(np.float64).reshape(len(features), -1, len(COLUMNS))
    values = bands[..., :-1]
    measured = np.broadcast_to(bands[..., -1:] > 0, values.shape)
    return values.reshape(len(features), -1), measured.reshape(len(features), -1)


def _standardised(features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    values, measured = _inputs(features)
    return np.where(measured, (values - mean) / std, 0.0)


def _average_precision(labels: np.ndarray, logits: np.ndarray) -> float | None:
    """Mean over the classes with positives and negatives; None where there is none."""
    present = labels.astype(bool)
    asked = np.flatnonzero(present.any(0) & ~present.all(0))
    each = [average_precision_score(present[:, one], logits[:, one]) for one in asked]
    return float(np.mean(each)) if each else None


BATCH_SIZE = 32

Splits = tuple[TaskDataset, TaskDataset, TaskDataset]
"""Of training, validation and test."""


def load_baseline_splits(config: ConfigDict, task: str, seed: int) -> Splits:
    """The splits of a task as the fine-tuning with this seed sees them."""
    recipe = config.finetune[task]
    kind = get_task(recipe.task)

    def opened(split: str) -> TaskDataset:
        return load_task_dataset(kind, recipe.dataset, config.data_dir, split, recipe.bands)

    training, validation = (
        take_label_fraction(opened(split), recipe.label_fraction, seed, all_classes=False)
        for split in (recipe.train_split, recipe.validation_split)
    )
    return training, validation, opened(TEST)


def measure_baseline(config: ConfigDict, task: str) -> dict[str, list[Metrics]]:
    """The metrics of every baseline of a task, by seed."""
    found: dict[str, list[Metrics]] = {}
    for seed in range(config.seeds):
        splits = load_baseline_splits(config, task, seed)
        for name, baseline in BASELINES.get(config.finetune[task].task, {}).items():
            found.setdefault(name, []).append(flat_metrics(baseline(splits)))
    return found


def statistics_of_images(splits: Splits) -> Predictions:
    """Logistic regression on band statistics."""

    def read(split: TaskDataset) -> tuple[np.ndarray, np.ndarray]:
        parts = [
            (band_statistics(batch["backscatter"]), batch["labels"]) for batch in all_labels(split)
        ]
        return _joined(parts, len(split))

    (x, y), (held_x, held_y), (test_x, test_y) = map(read, splits)
    model = fit_logistic(x, y, held_x, held_y)
    return baseline_predictions(splits[2], predict_logistic(model, test_x), test_y)


def statistics_of_changes(splits: Splits) -> Predictions:
    """Logistic regression on band statistics of both dates and of their difference."""

    def read(split: TaskDataset) -> tuple[np.ndarray, np.ndarray]:
        parts = [
            (change_statistics(batch["before"], batch["after"]), batch["labels"])
            for batch in all_labels(split)
        ]
        return _joined(parts, len(split))

    (x, y), (held_x, held_y), (test_x, test_y) = map(read, splits)
    model = fit_logistic(x, y[:, None], held_x, held_y[:, None])
    return baseline_predictions(splits[2], two_classes(predict_logistic(model, test_x)), test_y)


def measure_otsu(splits: Splits) -> Predictions:
    """The share that became as dark as water."""
    counts = np.zeros(len(otsu_baseline.EDGES) - 1, int)
    for batch in all_labels(splits[0]):
        flooded = batch["labels"] == 1
        counts += otsu_baseline.histogram(batch["before"][flooded], batch["after"][flooded])
    threshold = otsu_baseline.otsu(counts)

    def read(split: TaskDataset) -> tuple[np.ndarray, np.ndarray]:
        parts = [
            (otsu_baseline.new_water(batch["before"], batch["after"], threshold), batch["labels"])
            for batch in all_labels(split)
        ]
        return _joined(parts, len(split))

    (x, y), (held_x, held_y), (test_x, test_y) = map(read, splits)
    model = otsu_baseline.fit_otsu(threshold, x, y, held_x, held_y)
    return baseline_predictions(splits[2], otsu_baseline.predict_otsu(model, test_x), test_y)


def prevalence_baseline(splits: Splits) -> Predictions:
    """What is said without looking: the frequency of every label in training."""
    labels = np.concatenate([batch["labels"] for batch in all_labels(splits[0])])[: len(splits[0])]
    share = (labels.sum(0) + 0.5) / (len(labels) + 1)
    test = np.concatenate([batch["labels"] for batch in all_labels(splits[2])])[: len(splits[2])]
    logits = np.tile(np.log(share / (1 - share)), (len(test), 1)).astype(np.float32)
    return baseline_predictions(splits[2], logits, test)


def always_flood_baseline(splits: Splits) -> Predictions:
    """Every image is flooded."""
    test = np.concatenate([batch["labels"] for batch in all_labels(splits[2])])[: len(splits[2])]
    return baseline_predictions(splits[2], two_classes(np.ones(len(test))), test)


BASELINES: dict[str, dict[str, Callable[[Splits], Predictions]]] = {
    "classification": {
        "logistic regression on band statistics": statistics_of_images,
        "frequency of the labels": prevalence_baseline,
    },
    "flood": {
        "logistic regression on band statistics": statistics_of_changes,
        "Otsu on the log-ratio": measure_otsu,
        "always flood": always_flood_baseline,
    },
}
"""By task and name."""


def all_labels(split: TaskDataset) -> Iterator[dict[str, np.ndarray]]:
    """All records in their order, in batches, in dB; the last batch is filled up."""
    order, to_db = SequentialSampler(len(split), BATCH_SIZE), TO_DB[split.patches.unit]
    for batch in batches(split.patches.source, order, 0, order.steps):
        yield batch | {name: np.asarray(to_db(batch[name])) for name in split.task.images}


def _joined(
    parts: list[tuple[np.ndarray, np.ndarray]], records: int
) -> tuple[np.ndarray, np.ndarray]:
    features, labels = (np.concatenate(column)[:records] for column in zip(*parts, strict=True))
    return features, labels


def baseline_predictions(split: TaskDataset, logits: np.ndarray, labels: np.ndarray) -> Predictions:
    """Logits of a baseline as predictions."""
    return make_predictions(split, {"logits": logits, "labels": labels}, {})
