"""Speckle reduction in linear power, aware of nodata.

Model: intensity I = R n, with the backscatter R and speckle n of mean 1 and variance 1/L, where L
is the number of looks. With the mean m and variance s² of the valid pixels in a window around a
pixel, Ci² = s² / m² is compared with Cn² = 1 / L, that of speckle alone.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sar_mixmae_jax.objectives.radiometry import (
    db_to_linear,
    linear_to_db,
    valid_pixels,
    window_mean,
)
from sar_mixmae_jax.utils.errors import InputError, check_name

MAX_WINDOW = 31
"""Largest side of the window, pixels."""

APPLY_TO = ("target", "input_and_target", "weights")


@dataclasses.dataclass(frozen=True)
class SpeckleFilter:
    """Settings of speckle reduction.

    Attributes:
      filter: an entry of `FILTERS`, or "none".
      window: int, side of the window, pixels of the records, odd.
      looks: float, L; 4.4 for Sentinel-1 IW GRDH at 10 m.
      apply_to: "target": only what is reconstructed is filtered; "input_and_target": what the
        encoder sees is filtered too; "weights": nothing but the power of the loss weights.
      weights: bool, whether loss weights are computed from the filtered power.
    """

    filter: str = "none"
    window: int = 7
    looks: float = 4.4
    apply_to: str = "target"
    weights: bool = False

    def __post_init__(self) -> None:
        check_name(("none", *FILTERS), self.filter, "speckle.filter")
        check_name(APPLY_TO, self.apply_to, "speckle.apply_to")
        if self.window % 2 == 0 or not 3 <= self.window <= MAX_WINDOW:
            raise InputError(
                f"speckle.window is {self.window}: expected an odd number of pixels from 3 to "
                f"{MAX_WINDOW}"
            )
        if not 0 < self.looks <= 1000:
            raise InputError(
                f"speckle.looks is {self.looks}: expected a number above 0, at most 1000"
            )

    @property
    def filters_input(self) -> bool:
        """True if the encoder sees filtered images."""
        return self.filter != "none" and self.apply_to == "input_and_target"

    @property
    def filters_weights(self) -> bool:
        """True if the loss weights are computed from the filtered power."""
        return self.weights or self.apply_to == "weights"


class WindowStatistics(NamedTuple):
    """Arrays of one shape: a window around each pixel.

    Attributes:
      power: linear power of the pixel, I.
      mean: m.
      variation: coefficient of variation, Ci.
    """

    power: jax.Array
    mean: jax.Array
    variation: jax.Array


def reduce_speckle(db: jax.Array, settings: SpeckleFilter) -> jax.Array:
    """Filter images; pixels without data stay so and enter no window.

    Args:
      db: (batch, height, width, band), dB, nodata not finite.
      settings: settings of the filter; "none" returns `db`.
    """
    if settings.filter == "none":
        return db
    valid = valid_pixels(db)
    power = db_to_linear(jnp.where(valid, db, 0.0))
    mean = window_mean(power, valid, settings.window)
    mean = jnp.where(valid, mean, 1.0)
    square = window_mean(jnp.square(power), valid, settings.window)
    variance = jnp.maximum(square - jnp.square(mean), 0.0)
    statistics = WindowStatistics(power, mean, jnp.sqrt(variance) / mean)
    return jnp.where(valid, linear_to_db(FILTERS[settings.filter](statistics, settings.looks)), db)


def boxcar(window: WindowStatistics, looks: float) -> jax.Array:
    """Return the mean of the window."""
    del looks
    return window.mean


def lee(window: WindowStatistics, looks: float) -> jax.Array:
    """Return m + k (I - m) with k = max(0, 1 - Cn² / Ci²) (Lee, 1980)."""
    ratio = 1.0 / (looks * jnp.maximum(jnp.square(window.variation), 1e-12))
    return window.mean + jnp.maximum(0.0, 1.0 - ratio) * (window.power - window.mean)


def enhanced_lee(window: WindowStatistics, looks: float) -> jax.Array:
    """Return m in homogeneous windows, I at point targets, and between them m + (1 - w) (I - m).

    With w = exp(-(Ci - Cn) / (Cmax - Ci)) between Cn and Cmax = sqrt(1 + 2 / L) (Lopes, 1990, with
    a damping factor of 1).
    """
    low, high = looks**-0.5, (1.0 + 2.0 / looks) ** 0.5
    excess = window.variation - low
    between = (excess > 0) & (window.variation < high)
    share = jnp.exp(-excess / jnp.where(between, high - window.variation, 1.0))
    mixed = window.mean * share + window.power * (1.0 - share)
    return jnp.where(excess <= 0, window.mean, jnp.where(between, mixed, window.power))


def gamma_map(window: WindowStatistics, looks: float) -> jax.Array:
    """Return the most probable R for gamma-distributed R between Cn and sqrt(2) Cn (Lopes, 1993).

    Below, m is returned; above, I.
    """
    speckle = 1.0 / looks
    excess = jnp.square(window.variation) - speckle
    between = (excess > 0) & (excess < speckle)
    alpha = (1.0 + speckle) / jnp.where(between, excess, 1.0)
    linear = (alpha - looks - 1.0) * window.mean
    root = jnp.sqrt(jnp.square(linear) + 4.0 * alpha * looks * window.power * window.mean)
    probable = (linear + root) / (2.0 * alpha)
    return jnp.where(excess <= 0, window.mean, jnp.where(between, probable, window.power))


FILTERS: dict[str, Callable[[WindowStatistics, float], jax.Array]] = {
    "boxcar": boxcar,
    "lee": lee,
    "enhanced_lee": enhanced_lee,
    "gamma_map": gamma_map,
}
"""Filters by name: (statistics of the windows, looks) -> linear power."""

NO_FILTER = SpeckleFilter()
