"""Speckle statistics where a patch is calm: the same numbers of real patches and simulated ones.

A patch's calmest windows are those of the highest equivalent number of looks. Choosing them favours
windows that are calm by chance: an image of 4.4 looks has calm windows of 7 to 10. So these
numbers compare patches with patches, and do not say how many looks a product has.
"""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

WINDOW = 11  # pixels a side
STRIDE = 4  # pixels between windows
CALM_SHARE = 0.05  # of the windows of a patch


class Calm(NamedTuple):
    """Medians over the calmest windows of a patch; the first three hold one value per band.

    Attributes:
      looks: equivalent number of looks, mean² / variance of linear power.
      lag1: autocorrelation of linear power one pixel apart, rows and columns together.
      lag2: two pixels apart.
      between_bands: correlation of VH and VV power, where both bands are calm.
    """

    looks: np.ndarray
    lag1: np.ndarray
    lag2: np.ndarray
    between_bands: float


def calm(backscatter: np.ndarray) -> Calm:
    """Measures a patch.

    Args:
      backscatter: (size, size, 2) dB, NaN = nodata; at least one window must be free of it.
    """
    power = np.moveaxis(10 ** (backscatter.astype(np.float64) / 10), -1, 0)
    windows = sliding_window_view(power, (WINDOW, WINDOW), axis=(1, 2))[:, ::STRIDE, ::STRIDE]
    windows = windows.reshape(2, -1, WINDOW, WINDOW)
    windows = windows[:, np.isfinite(windows).all((0, 2, 3))]
    mean = windows.mean((2, 3), keepdims=True)
    deviation = windows - mean
    variance = np.square(deviation).mean((2, 3))
    looks = np.square(mean[..., 0, 0]) / variance
    count = max(1, int(CALM_SHARE * looks.shape[1]))
    order = np.argsort(-looks, axis=1)[:, :count]
    in_both = np.argsort(-looks.min(0))[:count]
    correlation = (deviation[0] * deviation[1]).mean((1, 2)) / np.sqrt(variance[0] * variance[1])

    def median(values: np.ndarray) -> np.ndarray:
        return np.median(np.take_along_axis(values, order, axis=1), axis=1)

    lag1, lag2 = (median(_autocorrelation(deviation, lag) / variance) for lag in (1, 2))
    return Calm(median(looks), lag1, lag2, float(np.median(correlation[in_both])))


def _autocorrelation(deviation: np.ndarray, lag: int) -> np.ndarray:
    """Autocovariance of windows, (band, window, row, column) to (band, window)."""
    rows = (deviation[..., lag:, :] * deviation[..., :-lag, :]).mean((2, 3))
    columns = (deviation[..., lag:] * deviation[..., :-lag]).mean((2, 3))
    return (rows + columns) / 2
