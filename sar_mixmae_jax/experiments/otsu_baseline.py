"""Flood baseline without a network: fraction of the image that became dark, with Otsu's threshold.

Open water reflects the pulse away from the radar, so a flooded field turns dark. A pixel counts as
new water if it darkened by more than a threshold, is as dark as water after the event, and was not
before. The threshold is Otsu's (IEEE Trans. SMC 9, 1979) on the log-ratio after / before of the
flooded training pairs: one for the dataset and not one for each pair, since Otsu's method always
divides a histogram in two and would call half of the speckle of an unchanged pair a flood.

Floods under trees and between houses, which turn brighter, are not detected.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter
from sklearn.linear_model import LogisticRegression

from sar_mixmae_jax.utils.errors import InputError

WINDOW = 5
"""Side of the moving average of linear power in pixels, against speckle."""

WATER_DB = -18.0
"""Mean over VH and VV in dB below which a surface is as dark as water: calm water has about -24,
roughened water -20, bare soil -16."""

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
      fraction: of new water above which an image is flooded, selected on the validation split;
        negative if every image is.
      slope: of the logit over log10(fraction + MIN_FRACTION), fitted on the training split.
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
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    total = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = total[:-1] / below - (total[-1] - total[:-1]) / above
    between = np.where((below > 0) & (above > 0), below * above * np.square(distance), 0.0)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(edges[1 + best[(len(best) - 1) // 2]])


def new_water_fraction(before: np.ndarray, after: np.ndarray, threshold: float) -> np.ndarray:
    """Return the fraction of the pixels valid on both dates that became water, (n,) float32.

    Args:
      before: (n, height, width, band) dB, nodata not finite.
      after: the same shape.
      threshold: log-ratio in dB below which a pixel darkened.

    Returns:
      0 for a pair without such a pixel.
    """
    first, second = _smoothed_db(before), _smoothed_db(after)
    valid = np.isfinite(first) & np.isfinite(second)
    # Comparisons with NaN are False.
    new = (second - first < threshold) & (second < WATER_DB) & (first >= WATER_DB)
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
      threshold: of the log-ratio, with which the fractions were computed.
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
