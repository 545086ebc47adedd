"""A baseline for floods without any network: how much of the image became dark, Otsu's threshold.

Open water mirrors the radar's pulse away, so a flooded field turns dark. A pixel counts as newly
water where it darkened by more than a threshold, is as dark as water after, and was not before.
The threshold is Otsu's (IEEE Trans. SMC 9, 1979) on the log-ratio after / before of the training
pairs that are flooded. One for the dataset and not one a pair: Otsu cuts whatever it is given in
two, so in a pair where nothing changed it would call half of the speckle a flood.

What it cannot see: floods under trees and between houses, which turn brighter.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter
from sklearn.linear_model import LogisticRegression

from sar_mixmae_jax.utils.decibel import db_to_linear, linear_to_db
from sar_mixmae_jax.utils.errors import InputError

WINDOW = 5
"""Pixels a side of the moving average of linear power, against speckle."""

WATER_DB = -18.0
"""Mean of the bands in dB below which a surface is as dark as water. VH and VV together, calm water
lies at -24, roughened water at -20, bare soil at -16."""

EDGES = np.linspace(-30.0, 0.0, 301)
"""Of the histogram of log-ratios in dB. What did not darken is in the last bin."""

LEAST_SHARE = 1e-3
"""Added to a share before its logarithm: a thousandth of the image is hardly a flood."""

LEAST_SLOPE = 0.01
"""Of the logit over the logarithm of the share: more new water never speaks against a flood."""


class OtsuBaseline(NamedTuple):
    """The fitted baseline.

    Attributes:
      threshold: log-ratio in dB below which a pixel darkened.
      share: of new water above which an image counts as flooded, chosen on the validation split;
        negative where every image does.
      slope: of the logit over log10(share + LEAST_SHARE), fitted on the training split.
    """

    threshold: float
    share: float
    slope: float


def histogram(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How often each log-ratio occurs: (len(EDGES) - 1,) counts, to be added over batches.

    Args:
      before: (n, height, width, band) dB, nodata not finite.
      after: the same.
    """
    ratio = _level(after) - _level(before)
    return np.histogram(np.clip(ratio[np.isfinite(ratio)], EDGES[0], EDGES[-1]), EDGES)[0]


def otsu(counts: np.ndarray, edges: np.ndarray = EDGES) -> float:
    """The edge that separates a histogram into the two classes of the largest variance between.

    Args:
      counts: (bins,).
      edges: (bins + 1,).

    Returns:
      The middle one of edges that are equally good, as between two modes far apart.

    Raises:
      InputError: the histogram is empty.
    """
    if not counts.sum():
        raise InputError(
            "Otsu's threshold: no pixel of a flooded training pair was measured on both dates, "
            "expected some: check the labels and the nodata of the training split"
        )
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    total = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = total[:-1] / below - (total[-1] - total[:-1]) / above
    between = np.where((below > 0) & (above > 0), below * above * np.square(apart), 0.0)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(edges[1 + best[(len(best) - 1) // 2]])


def new_water(before: np.ndarray, after: np.ndarray, threshold: float) -> np.ndarray:
    """Share of the pixels measured on both dates that became water: (n,) float32.

    A pair without such a pixel shows no new water: 0.

    Args:
      before: (n, height, width, band) dB, nodata not finite.
      after: the same.
      threshold: log-ratio in dB below which a pixel darkened.
    """
    was, now = _level(before), _level(after)
    known = np.isfinite(was) & np.isfinite(now)
    became = (now - was < threshold) & (now < WATER_DB) & (was >= WATER_DB)  # NaN compares False
    share = became.sum((1, 2)) / np.maximum(known.sum((1, 2)), 1)
    return share.astype(np.float32)


def fit_otsu(
    threshold: float,
    share: np.ndarray,
    flooded: np.ndarray,
    validation_share: np.ndarray,
    validation_flooded: np.ndarray,
) -> OtsuBaseline:
    """Makes logits of shares: the slope from training pairs, the decision from validation pairs.

    Args:
      threshold: of the log-ratio, by which the shares were computed.
      share: (n,) of `new_water`.
      flooded: (n,), 1 where flooded.
      validation_share: as `share`.
      validation_flooded: as `flooded`.
    """
    slope = LEAST_SLOPE
    if len(np.unique(flooded.astype(bool))) == 2:
        one = LogisticRegression(solver="newton-cholesky")
        slope = max(slope, one.fit(_log(share)[:, None], flooded.astype(bool)).coef_.item())
    level = _best_cut(_log(validation_share), validation_flooded.astype(bool))
    return OtsuBaseline(threshold, float(10**level - LEAST_SHARE), slope)


def predict_otsu(model: OtsuBaseline, share: np.ndarray) -> np.ndarray:
    """Logits (not flooded, flooded), (n, 2) float32; the second is positive above the level."""
    level = np.log10(model.share + LEAST_SHARE)
    return two_classes(model.slope * (_log(share) - level))


def _level(db: np.ndarray) -> np.ndarray:
    """(n, height, width) mean over the bands of the smoothed dB, NaN where a band is missing."""
    valid = np.isfinite(db)
    power = np.where(valid, db_to_linear(np.where(valid, db, 0.0).astype(np.float64)), 0.0)
    size = (1, WINDOW, WINDOW, 1)
    total = uniform_filter(power, size, mode="constant")
    weight = uniform_filter(valid.astype(np.float64), size, mode="constant")
    smooth = np.maximum(total, 1e-10) / np.maximum(weight, 1e-10)
    return np.where(valid, linear_to_db(smooth), np.nan).mean(-1)


def _log(share: np.ndarray) -> np.ndarray:
    return np.log10(share.astype(np.float64) + LEAST_SHARE)


def _best_cut(score: np.ndarray, positive: np.ndarray) -> float:
    """The cut of the highest F1, midway between two scores; of equals the one of fewest alarms."""
    levels, place = np.unique(score, return_inverse=True)
    alarms, hits = (
        np.append(0, np.cumsum(np.bincount(place, weight, len(levels))[::-1]))
        for weight in (None, positive)
    )
    best = int(np.argmax(2 * hits / np.maximum(alarms + positive.sum(), 1)))
    cuts = np.concatenate([[levels[-1] + 1], levels[::-1], [levels[0] - 1]])
    return float(cuts[best : best + 2].mean())


def two_classes(logit: np.ndarray) -> np.ndarray:
    """The logit of being flooded, (n,) or (n, 1), as logits (not flooded, flooded): (n, 2)."""
    flooded = logit.reshape(-1).astype(np.float32)
    return np.stack([np.zeros_like(flooded), flooded], axis=1)
