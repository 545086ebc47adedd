"""What is compared between simulated and real patches: quantiles, of patches that are alike."""

from collections.abc import Sequence

import numpy as np

from tfds_builders.synthetic_s1.simulator import CLASSES, Patch

PERCENTS = (1, 5, 25, 50, 75, 95, 99)
UNLIKE = ("Calm water", "Wind-roughened water", "Urban")  # the six real patches: one lake, no town
UNLIKE_SHARE = 0.2


def resembles(patch: Patch) -> bool:
    """Whether a simulated patch has little water and town and no nodata, as the real ones shown."""
    unlike = np.isin(patch.land_cover, [list(CLASSES).index(name) for name in UNLIKE]).mean()
    return bool(unlike < UNLIKE_SHARE and np.isfinite(patch.backscatter).all())


def quantiles(patches: Sequence[np.ndarray]) -> np.ndarray:
    """Quantiles of VH, VV and VV - VH, dB, medians over patches: (percent, 3)."""
    values = [np.nanpercentile(with_ratio(patch), PERCENTS, axis=(0, 1)) for patch in patches]
    return np.median(values, axis=0)


def with_ratio(patch: np.ndarray) -> np.ndarray:
    """Adds VV - VH as a third band."""
    return np.concatenate([patch, patch[..., 1:] - patch[..., :1]], axis=-1)
