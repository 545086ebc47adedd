"""Baselines without a network: logistic regression on band statistics, Otsu on the log-ratio."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from sar_mixmae_jax.evaluation.confusion import otsu_cut
from sar_mixmae_jax.utils.errors import InputError, look_up

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


WINDOW = 5
"""Side of the moving average of linear power in pixels, against speckle."""

WATER_DB = {"VH": -22.5, "VV": -13.5, "HV": -22.5, "HH": -16.0}
"""Level in dB below which a band is as dark as water: between roughened water and bare soil."""

EDGES = np.linspace(-30.0, 0.0, 301)
"""Bin edges of the log-ratio in dB; pixels that did not darken are in the last bin."""

MIN_FRACTION = 1e-3
"""Added to a fraction before its logarithm; a thousandth of the image is hardly a flood."""

MIN_SLOPE = 0.01
"""Least slope of the logit, so that more new water never lowers it."""


class OtsuBaseline(NamedTuple):
    """The fitted baseline.

    Attributes:
      threshold: log-ratio in dB below which a pixel darkened.
      fraction: fraction of new water above which an image is flooded, selected on the validation
        split; negative if every image is.
      slope: slope of the logit over log10(fraction + MIN_FRACTION), fitted on the training split.
    """

    threshold: float
    fraction: float
    slope: float


def log_ratio_histogram(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the (len(EDGES) - 1,) counts of the log-ratios, which can be added over batches.

    Args:
      before: (n, height, width, band) dB, nodata not finite.
      after: the same shape.
    """
    ratio = _smoothed_db(after) - _smoothed_db(before)
    return np.histogram(np.clip(ratio[np.isfinite(ratio)], EDGES[0], EDGES[-1]), EDGES)[0]


def otsu_threshold(counts: np.ndarray, edges: np.ndarray = EDGES) -> float:
    """Return the edge that maximises the between-class variance of a histogram.

    Args:
      counts: (bins,).
      edges: (bins + 1,).

    Returns:
      The middle one of equally good edges, as between two modes with empty bins between them.

    Raises:
      InputError: the histogram is empty.
    """
    if not counts.sum():
        raise InputError(
            "Otsu's threshold: found no flooded training pair with a pixel valid on both dates, "
            "expected some: check the labels and the nodata of the training split"
        )
    return otsu_cut(counts, edges)


def water_level(bands: Sequence[str]) -> float:
    """Return the level in dB below which the mean over bands is as dark as water.

    -18 for VH and VV: calm water has about -24, roughened water -20, bare soil -16.

    Raises:
      InputError: the level of a band is unknown.
    """
    return float(np.mean([look_up(WATER_DB, band, "band") for band in bands]))


def new_water_fraction(
    before: np.ndarray, after: np.ndarray, threshold: float, water_db: float
) -> np.ndarray:
    """Return the fraction of the pixels valid on both dates that became water, (n,) float32.

    Args:
      before: (n, height, width, band) dB, nodata not finite.
      after: the same shape.
      threshold: log-ratio in dB below which a pixel darkened.
      water_db: of `water_level`.

    Returns:
      0 for a pair without such a pixel.
    """
    first, second = _smoothed_db(before), _smoothed_db(after)
    valid = np.isfinite(first) & np.isfinite(second)
    # Comparisons with NaN are False.
    new = (second - first < threshold) & (second < water_db) & (first >= water_db)
    fraction = new.sum((1, 2)) / np.maximum(valid.sum((1, 2)), 1)
    return fraction.astype(np.float32)


def fit_otsu(
    threshold: float,
    fraction: np.ndarray,
    flooded: np.ndarray,
    validation_fraction: np.ndarray,
    validation_flooded: np.ndarray,
) -> OtsuBaseline:
    """Fit the slope of the logit on training pairs, and its zero on validation pairs.

    Args:
      threshold: threshold of the log-ratio, with which the fractions were computed.
      fraction: (n,) of `new_water_fraction`.
      flooded: (n,), 1 for a flooded pair.
      validation_fraction: as `fraction`.
      validation_flooded: as `flooded`.
    """
    slope = MIN_SLOPE
    if len(np.unique(flooded.astype(bool))) == 2:
        model = LogisticRegression(solver="newton-cholesky")
        model.fit(_log_fraction(fraction)[:, None], flooded.astype(bool))
        slope = max(slope, model.coef_.item())
    cut = _best_cut(_log_fraction(validation_fraction), validation_flooded.astype(bool))
    return OtsuBaseline(threshold, float(10**cut - MIN_FRACTION), slope)


def predict_otsu(model: OtsuBaseline, fraction: np.ndarray) -> np.ndarray:
    """Return the logits (not flooded, flooded), (n, 2) float32."""
    cut = np.log10(model.fraction + MIN_FRACTION)
    return two_class_logits(model.slope * (_log_fraction(fraction) - cut))


def two_class_logits(logit: np.ndarray) -> np.ndarray:
    """Return the (n,) or (n, 1) logit of a flood as logits (not flooded, flooded), (n, 2)."""
    flooded = logit.reshape(-1).astype(np.float32)
    return np.stack([np.zeros_like(flooded), flooded], axis=1)


def _smoothed_db(db: np.ndarray) -> np.ndarray:
    """Return the mean over bands of the smoothed power in dB, (n, height, width).

    NaN where a band is nodata.
    """
    valid = np.isfinite(db)
    power = np.where(valid, 10 ** (np.where(valid, db, 0.0).astype(np.float64) / 10), 0.0)
    size = (1, WINDOW, WINDOW, 1)
    total = uniform_filter(power, size, mode="constant")
    weight = uniform_filter(valid.astype(np.float64), size, mode="constant")
    smooth = np.maximum(total, 1e-10) / np.maximum(weight, 1e-10)
    return np.where(valid, 10 * np.log10(smooth), np.nan).mean(-1)


def _log_fraction(fraction: np.ndarray) -> np.ndarray:
    return np.log10(fraction.astype(np.float64) + MIN_FRACTION)


def _best_cut(score: np.ndarray, positive: np.ndarray) -> float:
    """Return the cut with the highest F1, midway between two scores; ties: fewest positives."""
    levels, indices = np.unique(score, return_inverse=True)
    predicted, hits = (
        np.append(0, np.cumsum(np.bincount(indices, weight, len(levels))[::-1]))
        for weight in (None, positive)
    )
    best = int(np.argmax(2 * hits / np.maximum(predicted + positive.sum(), 1)))
    cuts = np.concatenate([[levels[-1] + 1], levels[::-1], [levels[0] - 1]])
    return float(cuts[best : best + 2].mean())
