"""Random fields: smooth Gaussian fields, and the small blur of resampling.

All are sums of shifted arrays, without matrix products: the cost grows with the area, and the
result does not depend on the number of threads of a linear algebra library.
"""

from functools import cache

import numpy as np


def smooth_fields(rng: np.random.Generator, count: int, size: int, step: int) -> np.ndarray:
    """Draw Gaussian random fields of unit variance: white noise under cubic B-splines.

    Args:
      rng: random numbers of the noise on the coarse grid.
      count: number of fields.
      size: side in pixels.
      step: pixels between grid points; the autocorrelation falls to 1/e at about 1.15 steps.

    Returns:
      (count, size, size) float32.
    """
    weights = _spline_weights(step)
    cells = -(-size // step)
    nodes = rng.standard_normal((count, cells + 3, cells + 3), dtype=np.float32)
    columns = nodes[..., :cells, None] * weights[0]
    for tap in range(1, 4):
        columns += nodes[..., tap : tap + cells, None] * weights[tap]
    columns = columns.reshape(count, cells + 3, 1, cells * step)[..., :size]
    fields = columns[:, :cells] * weights[0][:, None]
    for tap in range(1, 4):
        fields += columns[:, tap : tap + cells] * weights[tap][:, None]
    return fields.reshape(count, cells * step, size)[:, :size]


def fractal_field(rng: np.random.Generator, size: int, octaves: dict[int, float]) -> np.ndarray:
    """Draw a sum of smooth fields.

    Args:
      rng: random numbers of the fields.
      size: side in pixels.
      octaves: amplitude by step; see `smooth_fields`.

    Returns:
      (size, size) float32 of unit variance.
    """
    total = np.sqrt(sum(amplitude**2 for amplitude in octaves.values()))
    field = np.zeros((size, size), np.float32)
    for step, amplitude in octaves.items():
        field += smooth_fields(rng, 1, size, step)[0] * np.float32(amplitude / total)
    return field


def blur(images: np.ndarray, side: float) -> np.ndarray:
    """Convolve the last two axes with (side, 1 - 2 side, side); each loses two pixels."""
    outer, middle = np.float32(side), np.float32(1 - 2 * side)
    rows = middle * images[..., 1:-1, :] + outer * (images[..., :-2, :] + images[..., 2:, :])
    return middle * rows[..., 1:-1] + outer * (rows[..., :-2] + rows[..., 2:])


@cache
def _spline_weights(step: int) -> np.ndarray:
    """Return cubic B-spline weights of four neighbouring grid points.

    They are scaled to unit norm, so that white noise keeps its variance: (4, step) float32, a
    column for each position between two grid points.
    """
    t = np.arange(step) / step
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 3 * (t + t**2 - t**3) + 1, t**3])
    return (weights / np.linalg.norm(weights, axis=0)).astype(np.float32)
