"""Baseline without a network: logistic regression on statistics of the bands of an image."""

from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

PERCENTILES = (5, 25, 50, 75, 95)
COLUMNS = ("mean", "std", *(f"p{percentile:02}" for percentile in PERCENTILES), "measured")
"""Statistics of a band, in dB except "measured", which is 1 for a band with a valid pixel."""

REGULARISATIONS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""Candidates of scikit-learn's C; larger is weaker."""

DEFAULT_REGULARISATION = 1.0
"""C where no class of the validation split has both positives and negatives."""


class LogisticBaseline(NamedTuple):
    """A fitted logistic regression, one versus the rest for every class.

    Attributes:
      mean: (inputs,) of the training split, dB; replaces a band without a valid pixel.
      std: (inputs,) of the training split, dB.
      weights: (inputs, classes) for standardised inputs.
      intercept: (classes,).
      regularisation: the selected C.
      validation: mean average precision on the validation split over the classes with both
        positives and negatives; None without such a class.
      constant: indices of the classes that all or none of the training images have; their logit is
        that of their prevalence.
    """

    mean: np.ndarray
    std: np.ndarray
    weights: np.ndarray
    intercept: np.ndarray
    regularisation: float
    validation: float | None
    constant: tuple[int, ...]


def band_statistics(backscatter: np.ndarray) -> np.ndarray:
    """Return statistics of the distribution of every band.

    A band without a valid pixel is 0 in all columns, "measured" included; the regression then uses
    the mean of the training split, so that the band has no effect.

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
    divisor = np.maximum(pixels, 1)
    mean = np.sum(ordered, axis=1, where=valid, dtype=np.float64) / divisor
    squares = np.square(ordered - mean[:, None])
    std = np.sqrt(np.sum(squares, axis=1, where=valid, dtype=np.float64) / divisor)
    percentiles = [_percentile(ordered, divisor, percentile) for percentile in PERCENTILES]
    statistics = np.stack([mean, std, *percentiles, np.ones_like(std)], axis=-1)  # n, band, column
    statistics = np.where(pixels[..., None] > 0, statistics, 0.0)
    return statistics.reshape(count, -1).astype(np.float32)


def _percentile(ordered: np.ndarray, pixels: np.ndarray, percentile: float) -> np.ndarray:
    """Return the (n, band) percentile of the first `pixels` (n, band) of (n, values, band)."""
    place = percentile / 100 * (pixels - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, pixels - 1)
    below, above = (np.take_along_axis(ordered, at[:, None], 1)[:, 0] for at in (low, high))
    return below + (place - low) * (above - below)


def change_statistics(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return statistics of both dates, and of the difference of the pixels valid on both.

    Args:
      before: (n, height, width, band) dB, nodata not finite.
      after: the same shape.

    Returns:
      (n, 3 * band * len(COLUMNS)) float32.
    """
    valid = np.isfinite(before) & np.isfinite(after)
    difference = np.subtract(after, before, where=valid, out=np.full(before.shape, np.nan))
    return np.concatenate(
        [band_statistics(images) for images in (before, after, difference)], axis=1
    )


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    validation_features: np.ndarray,
    validation_labels: np.ndarray,
) -> LogisticBaseline:
    """Fit on the training split; select C, one for all classes, on the validation split.

    Args:
      features: (n, columns) of `band_statistics` or `change_statistics`.
      labels: (n, classes), 1 where an image has a class.
      validation_features: as `features`.
      validation_labels: as `labels`.
    """
    values, measured = _split_columns(features)
    pixels = np.maximum(measured.sum(0), 1)
    mean = np.sum(values, axis=0, where=measured) / pixels
    std = np.sqrt(np.sum(np.square(values - mean), axis=0, where=measured) / pixels)
    std = np.where(std > 0, std, 1.0)
    inputs = _standardise(features, mean, std)
    present = labels.astype(bool)
    positives = present.sum(0)
    constant = tuple(np.flatnonzero((positives == 0) | (positives == len(present))).tolist())

    def candidate(regularisation: float) -> LogisticBaseline:
        weights = np.zeros((inputs.shape[1], present.shape[1]))
        intercept = np.log((positives + 0.5) / (len(present) - positives + 0.5))
        for number in sorted({*range(present.shape[1])} - {*constant}):
            model = LogisticRegression(C=regularisation, solver="newton-cholesky", max_iter=1000)
            model.fit(inputs, present[:, number])
            weights[:, number], intercept[number] = model.coef_[0], model.intercept_[0]
        fitted = LogisticBaseline(mean, std, weights, intercept, regularisation, None, constant)
        precision = _mean_average_precision(
            validation_labels, predict_logistic(fitted, validation_features)
        )
        return fitted._replace(validation=precision)

    candidates = [candidate(regularisation) for regularisation in REGULARISATIONS]
    best = max(candidates, key=lambda fitted: fitted.validation or 0.0)  # ties: the strongest
    return candidate(DEFAULT_REGULARISATION) if best.validation is None else best


def predict_logistic(model: LogisticBaseline, features: np.ndarray) -> np.ndarray:
    """Return the logits, (n, classes) float32."""
    inputs = _standardise(features, model.mean, model.std)
    return (inputs @ model.weights + model.intercept).astype(np.float32)


def _split_columns(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the (n, inputs) columns in dB, and True where their band has a valid pixel."""
    bands = features.astype(np.float64).reshape(len(features), -1, len(COLUMNS))
    values = bands[..., :-1]
    measured = np.broadcast_to(bands[..., -1:] > 0, values.shape)
    return values.reshape(len(features), -1), measured.reshape(len(features), -1)


def _standardise(features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    values, measured = _split_columns(features)
    return np.where(measured, (values - mean) / std, 0.0)


def _mean_average_precision(labels: np.ndarray, logits: np.ndarray) -> float | None:
    """Return the mean over the classes with both positives and negatives; None without one."""
    present = labels.astype(bool)
    defined = np.flatnonzero(present.any(0) & ~present.all(0))
    precisions = [average_precision_score(present[:, at], logits[:, at]) for at in defined]
    return float(np.mean(precisions)) if precisions else None
