"""Instrument and processor: speckle, noise subtraction, impulse response, resampling."""

from functools import cache

import numpy as np
from scipy.special import gammaincinv, ndtr

from sar_mixmae_jax.utils.decibel import db_to_linear
from tfds_builders.synthetic_s1.fields import blur

LOOKS = (4.0, 4.2, 4.4, 4.6, 4.8)  # before resampling; 4.4 is the nominal number of the product
DETECTED_SIDE = 0.21  # speckle of the product on its own grid of 10 m
RESPONSE_SIDE = 0.2  # the instrument resolves 20 m by 22 m
RESAMPLING_SIDE = 0.15  # bilinear resampling to the map, at the mean offset
MARGIN = 2  # pixels a side that response and resampling take away
NOISE_DB = (-28.0, -22.0)  # noise-equivalent sigma0, between scenes
NOISE_SLOPE_DB_PER_KM = 0.1  # its change across range, at most
RESIDUE = 0.45  # of the signal, where the subtraction reaches zero; fits the tail of a real lake
NODES = 4096  # of the tables of quantiles
REACH = 4.8  # standard deviations that the tables cover


def speckle(rng: np.random.Generator, size: int, looks: float) -> np.ndarray:
    """Draw multi-look intensity of unit mean before resampling: gamma, spatially correlated.

    A Gaussian field per band, correlated as detected intensity is, is mapped to gamma quantiles:
    the marginal is exact for any number of looks, with one random number a pixel.

    Args:
      rng: random numbers of the speckle.
      size: side in pixels.
      looks: order of the gamma distribution.

    Returns:
      (2, size, size) float32, the bands independent.
    """
    white = rng.standard_normal((2, size + 2, size + 2), dtype=np.float32)
    variance = (2 * DETECTED_SIDE**2 + (1 - 2 * DETECTED_SIDE) ** 2) ** 2
    return gamma_table(looks)[table_index(blur(white, DETECTED_SIDE) / np.float32(variance**0.5))]


def noise_floor(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw the linear noise-equivalent sigma0 with its trend across range: (size,) float32."""
    slope = rng.uniform(-NOISE_SLOPE_DB_PER_KM, NOISE_SLOPE_DB_PER_KM) / 100  # dB per pixel
    level = rng.uniform(*NOISE_DB) + slope * (np.arange(size) - size / 2)
    return db_to_linear(level).astype(np.float32)


def apply_response(power: np.ndarray) -> np.ndarray:
    """Return mean power in resolution cells, without a pixel on each side."""
    return blur(power, RESPONSE_SIDE)


def measure(power: np.ndarray, floor: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """Speckle signal and noise together and subtract the mean noise, as the processor does.

    Where the difference reaches zero, a share `RESIDUE` of the speckled signal stays: the
    subtracted noise is an estimate, so real values are not constant there. Resampling then mixes
    neighbours.

    Args:
      power: (2, size, size) linear.
      floor: (size,) noise-equivalent sigma0, linear.
      multiplier: (2, size, size) speckle.
    """
    return np.maximum(power * multiplier + floor * (multiplier - 1), RESIDUE * power * multiplier)


def resample(power: np.ndarray) -> np.ndarray:
    """Resample from the grid of the product to the map, without a pixel on each side."""
    return blur(power, RESAMPLING_SIDE)


def observe(
    power: np.ndarray, targets: np.ndarray, floor: np.ndarray, multiplier: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the measured image of a scene, and the truth without speckle and noise.

    A point target dominates its resolution cell and does not speckle.

    Args:
      power: (2, size + 4, size + 4) linear power of the scene.
      targets: (2, size + 2, size + 2) power of point targets.
      floor: (size + 2,) noise-equivalent sigma0, linear.
      multiplier: (2, size + 2, size + 2) speckle.

    Returns:
      Two (2, size, size) images of linear power.
    """
    signal = apply_response(power)
    return resample(measure(signal, floor, multiplier) + targets), resample(signal + targets)


def table_index(field: np.ndarray) -> np.ndarray:
    """Return the index into `gamma_table` of standard normal values."""
    scaled = (field + np.float32(REACH)) * np.float32(NODES / (2 * REACH))
    return np.clip(scaled.astype(np.int32), 0, NODES - 1)


@cache
def gamma_table(order: float) -> np.ndarray:
    """Return gamma quantiles of unit mean at midpoints of standard normal nodes: (NODES,)."""
    middle = (np.arange(NODES) + 0.5) * (2 * REACH / NODES) - REACH
    return (gammaincinv(order, ndtr(middle)) / order).astype(np.float32)
