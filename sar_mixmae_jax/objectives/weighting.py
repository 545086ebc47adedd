"""Loss weights from backscatter power: larger for dark, smooth surfaces than for bright scatterers.

With the linear power P of an image, n(P) = (P - min) / (max - min + 1e-6) over its pixels and the
scale s, the weight is exp(s (1 - n(P))), between 1 and e^s (Caglayan et al., IGARSS 2025 and JSTARS
2026). Nodata is left out of minimum and maximum and has weight 0.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sar_mixmae_jax.objectives.radiometry import db_to_linear, linear_to_db, window_mean
from sar_mixmae_jax.utils.errors import InputError, check_name, look_up

PIXELS = (1, 2)
"""The height and width axes of (batch, height, width, band)."""

MAX_SCALE = 10
"""Largest magnitude of the scale."""

MAX_SMOOTH = 31
"""Largest side of the moving average, pixels."""

DOMAINS = ("physical", "standardised")
POWER_DOMAINS = ("linear", "db")
NORMALISATIONS = ("none", "mean")


@dataclasses.dataclass(frozen=True)
class Weighting:
    """Weighting of the reconstruction error.

    Attributes:
      name: an entry of `WEIGHTINGS`.
      domain: "standardised" computes power from the standardised image, 10^(z/10), as the released
        training scripts do; "physical" from dB, as the papers write.
      scale: float, s; negative values emphasise bright areas.
      power_domain: "linear" normalises linear power; "db" normalises its dB.
      clip: percentiles (low, high) used in place of minimum and maximum, or None.
      smooth: int, side of a moving average over linear power, pixels, odd; 1: no averaging.
      normalise: "mean" divides each map by its mean over valid pixels; "none" does not.
    """

    name: str = "per_channel"
    domain: str = "standardised"
    scale: float = 1.0
    power_domain: str = "linear"
    clip: tuple[float, float] | None = None
    smooth: int = 1
    normalise: str = "none"

    def __post_init__(self) -> None:
        look_up(WEIGHTINGS, self.name, "weighting")
        for field, known in (
            ("domain", DOMAINS),
            ("power_domain", POWER_DOMAINS),
            ("normalise", NORMALISATIONS),
        ):
            check_name(known, getattr(self, field), f"weighting {field}")
        if not abs(self.scale) <= MAX_SCALE:
            raise InputError(
                f"weighting.scale is {self.scale}: expected a number between -{MAX_SCALE} and "
                f"{MAX_SCALE}"
            )
        if self.smooth % 2 == 0 or not 1 <= self.smooth <= MAX_SMOOTH:
            raise InputError(
                f"weighting.smooth is {self.smooth}: expected an odd number of pixels, "
                f"at most {MAX_SMOOTH}"
            )
        if self.clip is not None and not _are_percentiles(self.clip):
            raise InputError(f"weighting.clip is {self.clip}: expected percentiles such as (1, 99)")


def _are_percentiles(clip: tuple) -> bool:
    numbers = len(clip) == 2 and all(isinstance(value, int | float) for value in clip)
    return numbers and 0 <= clip[0] < clip[1] <= 100


def loss_weights(
    db: jax.Array, standardised: jax.Array, valid: jax.Array, weighting: Weighting
) -> jax.Array:
    """Return the weight of every pixel and band.

    Args:
      db: (batch, height, width, band) backscatter, dB.
      standardised: the same, standardised.
      valid: of the same shape, True where measured.
      weighting: settings.

    Returns:
      (batch, height, width, band) weights, 0 at nodata.
    """
    level = db if weighting.domain == "physical" else standardised
    power = db_to_linear(jnp.where(valid, level, 0.0))
    if weighting.smooth > 1:
        power = jnp.where(valid, window_mean(power, valid, weighting.smooth), power)
    weights = jnp.where(valid, WEIGHTINGS[weighting.name](power, valid, weighting), 0.0)
    if weighting.normalise == "mean":
        count = valid.sum(PIXELS, keepdims=True)
        total = weights.sum(PIXELS, keepdims=True)
        weights = weights * jnp.where(count > 0, count / jnp.maximum(total, 1e-12), 0.0)
    return weights


def per_channel(power: jax.Array, valid: jax.Array, weighting: Weighting) -> jax.Array:
    """Return one map per band from its own power (JSTARS 2026, and the released scripts)."""
    return jnp.exp(weighting.scale * (1.0 - _unit_range(power, valid, weighting)))


def shared_average(power: jax.Array, valid: jax.Array, weighting: Weighting) -> jax.Array:
    """Return one map for all bands from their mean power (IGARSS 2025).

    Minimum and maximum are taken over pixels where all bands were measured, or where there are none
    in an image, over those with any; the weight of a pixel that lacks a band is computed from the
    others.
    """
    measured = valid.sum(-1, keepdims=True)
    mean = jnp.where(valid, power, 0.0).sum(-1, keepdims=True) / jnp.maximum(measured, 1)
    mean = jnp.where(measured > 0, mean, 1.0)  # any positive value: the weight is set to 0 later
    whole, partial = valid.all(-1, keepdims=True), measured > 0
    used = jnp.where(whole.any(PIXELS, keepdims=True), whole, partial)
    weights = per_channel(mean, used, weighting)
    return jnp.broadcast_to(weights, power.shape)


def none(power: jax.Array, valid: jax.Array, weighting: Weighting) -> jax.Array:
    """Return weights of 1, those of plain MixMAE."""
    del valid, weighting
    return jnp.ones_like(power)


WEIGHTINGS: dict[str, Callable[[jax.Array, jax.Array, Weighting], jax.Array]] = {
    "per_channel": per_channel,
    "shared_average": shared_average,
    "none": none,
}
"""Weighting functions by name: (linear power, valid, settings) -> weights."""


def _unit_range(power: jax.Array, valid: jax.Array, weighting: Weighting) -> jax.Array:
    """Return n(P): power or its dB, min-max normalised over the valid pixels per image and band."""
    values = power if weighting.power_domain == "linear" else linear_to_db(power)
    if weighting.clip is None:
        low = jnp.where(valid, values, jnp.inf).min(PIXELS, keepdims=True)
        high = jnp.where(valid, values, -jnp.inf).max(PIXELS, keepdims=True)
    else:
        seen = jnp.where(valid, values, jnp.nan)
        low, high = jnp.nanpercentile(seen, jnp.array(weighting.clip), axis=PIXELS, keepdims=True)
    measured = valid.any(PIXELS, keepdims=True)
    normalised = (values - low) / (high - low + 1e-6)
    return jnp.where(measured, jnp.clip(normalised, 0.0, 1.0), 0.0)
