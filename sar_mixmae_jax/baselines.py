"""A baseline without any network: logistic regression on the band statistics of an image.

Where it does as well as the encoders, the test discriminates nothing (`comparison/statistics.py`).
The other one is for floods alone, `comparison/darkening.py`.
"""

from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

PERCENTILES = (5, 25, 50, 75, 95)
COLUMNS = ("mean", "std", *(f"p{percentile:02}" for percentile in PERCENTILES), "measured")
"""What `statistics` says of a band, all but the last in dB."""

REGULARISATIONS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""The values of scikit-learn's C (larger is weaker) that are tried."""

UNCHOSEN = 1.0
"""C where no class of the validation split has positives and negatives: nothing can be chosen."""


class Regression(NamedTuple):
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


def statistics(backscatter: np.ndarray) -> np.ndarray:
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
    return np.concatenate([statistics(images) for images in (before, after, difference)], axis=1)


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    validation_features: np.ndarray,
    validation_labels: np.ndarray,
) -> Regression:
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

    def candidate(regularisation: float) -> Regression:
        weights = np.zeros((inputs.shape[1], present.shape[1]))
        intercept = np.log((positives + 0.5) / (len(present) - positives + 0.5))
        for number in sorted({*range(present.shape[1])} - {*constant}):
            one = LogisticRegression(C=regularisation, solver="newton-cholesky", max_iter=1000)
            one.fit(inputs, present[:, number])
            weights[:, number], intercept[number] = one.coef_[0], one.intercept_[0]
        fitted = Regression(mean, std, weights, intercept, regularisation, None, constant)
        precision = _average_precision(validation_labels, predict(fitted, validation_features))
        return fitted._replace(validation=precision)

    candidates = [candidate(regularisation) for regularisation in REGULARISATIONS]
    chosen = max(candidates, key=lambda one: one.validation or 0.0)  # the strongest of equals
    return candidate(UNCHOSEN) if chosen.validation is None else chosen


def predict(model: Regression, features: np.ndarray) -> np.ndarray:
    """The logits, (n, classes) float32."""
    inputs = _standardised(features, model.mean, model.std)
    return (inputs @ model.weights + model.intercept).astype(np.float32)


def two_classes(logit: np.ndarray) -> np.ndarray:
    """The logit of being flooded, (n,) or (n, 1), as logits (not flooded, flooded): (n, 2)."""
    flooded = logit.reshape(-1).astype(np.float32)
    return np.stack([np.zeros_like(flooded), flooded], axis=1)


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
