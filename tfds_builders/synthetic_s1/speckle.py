"""What the instrument and the processor do to a scene: speckle, noise subtraction, resampling."""

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
RESIDUE = 0.45  # of the signal is left where the subtraction reaches zero: the tail of a real lake
NODES = 4096  # of the tables of quantiles
REACH = 4.8  # standard deviations that the tables cover


def speckle(rng: np.random.Generator, size: int, looks: float) -> np.ndarray:
    """Multi-look intensity of unit mean before resampling: gamma, correlated between pixels.

    One Gaussian field per band, correlated as detected intensity is, is mapped to gamma quantiles:
    the marginal is exact at any number of looks, at the price of one random number a pixel.

    Args:
      rng: where the noise comes from.
      size: pixels a side.
      looks: order of the gamma distribution.

    Returns:
      (2, size, size) float32, the bands independent.
    """
    white = rng.standard_normal((2, size + 2, size + 2), dtype=np.float32)
    variance = (2 * DETECTED_SIDE**2 + (1 - 2 * DETECTED_SIDE) ** 2) ** 2
    return gamma_table(looks)[node(blur(white, DETECTED_SIDE) / np.float32(variance**0.5))]


def noise(rng: np.random.Generator, size: int) -> np.ndarray:
    """Noise-equivalent sigma0, linear, with its trend across range (columns): (size,) float32."""
    slope = rng.uniform(-NOISE_SLOPE_DB_PER_KM, NOISE_SLOPE_DB_PER_KM) / 100  # dB per pixel
    level = rng.uniform(*NOISE_DB) + slope * (np.arange(size) - size / 2)
    return db_to_linear(level).astype(np.float32)


def respond(power: np.ndarray) -> np.ndarray:
    """Mean power in resolution cells, which loses a pixel on each side."""
    return blur(power, RESPONSE_SIDE)


def measure(power: np.ndarray, floor: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """Speckles signal and noise together and subtracts the mean noise, as the processor does.

    Where that reaches zero a residue stays, a share of the speckled signal: real values are never
    one constant there, since the noise that is subtracted is an estimate. Resampling then mixes
    what is left with its neighbours.

    Args:
      power: (2, size, size) linear.
      floor: noise-equivalent sigma0, linear, (size,).
      multiplier: speckle, (2, size, size).
    """
    return np.maximum(power * multiplier + floor * (multiplier - 1), RESIDUE * power * multiplier)


def resample(power: np.ndarray) -> np.ndarray:
    """From the grid of the product to that of the map, which loses a pixel on each side."""
    return blur(power, RESAMPLING_SIDE)


def observe(
    power: np.ndarray, targets: np.ndarray, floor: np.ndarray, multiplier: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What is seen of a scene, and the truth: the same without speckle and noise.

    A point target dominates its cell and does not speckle.

    Args:
      power: of the scene, (2, size + 4, size + 4) linear.
      targets: power of point targets, (2, size + 2, size + 2).
      floor: noise-equivalent sigma0, linear, (size + 2,).
      multiplier: speckle, (2, size + 2, size + 2).

    Returns:
      Two (2, size, size) images of linear power.
    """
    signal = respond(power)
    return resample(measure(signal, floor, multiplier) + targets), resample(signal + targets)


def node(field: np.ndarray) -> np.ndarray:
    """Which entry of `gamma_table` a standard normal value falls on."""
    scaled = (field + np.float32(REACH)) * np.float32(NODES / (2 * REACH))
    return np.clip(scaled.astype(np.int32), 0, NODES - 1)


@cache
def gamma_table(order: float) -> np.ndarray:
    """Gamma quantiles of unit mean at the midpoints of standard normal nodes: (NODES,) float32."""
    middle = (np.arange(NODES) + 0.5) * (2 * REACH / NODES) - REACH
    return (gammaincinv(order, ndtr(middle)) / order).astype(np.float32)
