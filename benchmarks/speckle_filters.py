"""Compare speckle filters with the noise-free truth of the simulator.

  python -m benchmarks.speckle_filters --patches=200

Prints bias and root mean square error against the truth in dB, away from borders between land
covers and beside them, and the equivalent number of looks on calm water.
"""

import sys
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from absl import flags
from scipy.ndimage import binary_dilation

from sar_mixmae_jax.objectives.speckle_filter import FILTERS, SpeckleFilter, reduce_speckle
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.decibel import db_to_linear
from sar_mixmae_jax.utils.tables import markdown_table
from tfds_builders.synthetic_s1.land_cover import NUMBER
from tfds_builders.synthetic_s1.simulator import Patch, simulate

FLAGS = flags.FlagValues()
PATCHES = flags.DEFINE_integer("patches", 200, "simulated patches", 1, flag_values=FLAGS)
SIZE = flags.DEFINE_integer("size", 120, "side of a patch, pixels", 32, flag_values=FLAGS)
LOOKS = flags.DEFINE_float("looks", 4.4, "number of looks", 0.1, flag_values=FLAGS)
WINDOWS = (5, 7, 11)
BESIDE = 3
"""Pixels from a border between land covers that count as beside it."""
SIDE = 16
"""Side in pixels of the squares in which looks are estimated."""


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Filter simulated patches and print the table."""
    parse_flags(argv, FLAGS, __doc__)
    patches = [simulate(SIZE.value, (0, number)) for number in range(PATCHES.value)]
    settings = [SpeckleFilter()]
    settings += [SpeckleFilter(name, window, LOOKS.value) for name in FILTERS for window in WINDOWS]
    header = ("filter", "window", "bias, dB", "RMSE, dB", "beside borders, dB", "looks on water")
    print("\n".join(markdown_table(header, [compare(patches, one) for one in settings])))


def compare(patches: Sequence[Patch], settings: SpeckleFilter) -> tuple[str, ...]:
    """Return the row of a filter: bias, errors and looks over all patches and both bands."""
    measured = np.stack([patch.backscatter for patch in patches])
    truth = np.stack([patch.noise_free for patch in patches])
    filtered = np.asarray(reduce_speckle(jnp.asarray(measured), settings))
    near = np.stack([beside_borders(patch.land_cover) for patch in patches])[..., None]
    error = filtered - truth
    looks = []
    for patch, image in zip(patches, filtered, strict=True):
        looks += looks_on_water(patch.land_cover, image)
    values = (
        np.nanmean(error),
        np.sqrt(np.nanmean(np.square(np.where(near, np.nan, error)))),
        np.sqrt(np.nanmean(np.square(np.where(near, error, np.nan)))),
    )
    window = "" if settings.filter == "none" else str(settings.window)
    return (settings.filter, window, *(f"{v:.2f}" for v in values), f"{np.median(looks):.1f}")


def beside_borders(land_cover: np.ndarray) -> np.ndarray:
    """Return True within `BESIDE` pixels of another land cover."""
    border = np.zeros(land_cover.shape, bool)
    border[:-1] |= land_cover[:-1] != land_cover[1:]
    border[:, :-1] |= land_cover[:, :-1] != land_cover[:, 1:]
    return binary_dilation(border, iterations=BESIDE)


def looks_on_water(land_cover: np.ndarray, db: np.ndarray) -> list[float]:
    """Return mean² / variance of the power of each band in squares of calm water."""
    looks = []
    for row in range(0, len(land_cover) - SIDE, SIDE):
        for column in range(0, len(land_cover) - SIDE, SIDE):
            square = np.s_[row : row + SIDE, column : column + SIDE]
            power = db_to_linear(db[square])
            if (land_cover[square] == NUMBER["Calm water"]).all() and np.isfinite(power).all():
                looks += list(power.mean((0, 1)) ** 2 / power.var((0, 1)))
    return looks


if __name__ == "__main__":
    main(sys.argv)
