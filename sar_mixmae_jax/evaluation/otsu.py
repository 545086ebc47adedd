"""Otsu's threshold of a histogram."""

import numpy as np


def otsu_cut(counts: np.ndarray, edges: np.ndarray) -> float:
    """Return the edge that maximises the between-class variance of a histogram.

    Args:
      counts: (bins,), not all 0.
      edges: (bins + 1,).

    Returns:
      The middle one of equally good edges, as between two modes with empty bins between them.
    """
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    total = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = total[:-1] / below - (total[-1] - total[:-1]) / above
    between = np.where((below > 0) & (above > 0), below * above * np.square(distance), 0.0)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(edges[1 + best[(len(best) - 1) // 2]])
