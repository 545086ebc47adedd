"""Simulated Sentinel-1 IW GRD patches: a scene, the instrument, the edge of the swath.

The measured image is signal and noise, speckled, minus the mean noise, resampled to the map; the
truth is the signal, resampled in the same way.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.utils.decibel import linear_to_db
from tfds_builders import records
from tfds_builders.shards import Example
from tfds_builders.synthetic_s1.backscatter import draw_ground, point_targets
from tfds_builders.synthetic_s1.land_cover import CLASSES, NUMBER
from tfds_builders.synthetic_s1.speckle import LOOKS, MARGIN, noise_floor, observe, speckle

WATER = [NUMBER[name] for name in ("Calm water", "Wind-roughened water")]
INCIDENCE_DEG = (30.0, 46.0)  # of the IW swath
LABEL_SHARE = 0.01  # least share of the valid pixels for a label
BORDER_SHARE = 0.1  # of patches are cut by the edge of the swath
BORDER_TILT_DEG = 12.0  # of the ground track against north
STRIP_PIXELS = (0.0, 6.0)  # width of the strip of noise along the edge
STRIP_DB = (-42.0, -30.0)  # its level, between scenes


class Patch(NamedTuple):
    """A simulated patch of 10 m pixels.

    Attributes:
      backscatter: (size, size, band) float32 dB, NaN = nodata in all bands.
      noise_free: (size, size, band) float32 dB with texture and point targets, without speckle and
        noise; the same nodata.
      land_cover: (size, size) uint8 index into CLASSES, also under nodata.
      incidence_angle: at the centre, degrees.
    """

    backscatter: np.ndarray
    noise_free: np.ndarray
    land_cover: np.ndarray
    incidence_angle: float


CO_POL = ("VV", "HH")
"""Bands in which the radar receives what it transmits."""


def simulate(size: int, seed: tuple[int, ...], bands: Sequence[str] = BANDS) -> Patch:
    """Simulate a patch; equal arguments give bitwise equal patches.

    With the same seed, a band does not depend on the others, and HV equals VH (reciprocity).

    Args:
      size: side in pixels.
      seed: seed sequence of NumPy.
      bands: names of the bands of one transmitted polarisation: among VH and VV, or among HV and
        HH.
    """
    co_pol = "HH" if set(bands) & {"HV", "HH"} else "VV"
    rng = np.random.default_rng(seed)
    incidence = rng.uniform(*INCIDENCE_DEG)
    scene = draw_ground(rng, size + 2 * MARGIN, incidence, co_pol)
    targets = point_targets(rng, scene.cover[1:-1, 1:-1])
    multiplier = speckle(rng, size + 2, LOOKS[rng.integers(len(LOOKS))])
    seen, truth = observe(scene.power, targets, noise_floor(rng, size + 2), multiplier)
    cover = scene.cover[MARGIN:-MARGIN, MARGIN:-MARGIN]
    if rng.integers(2):  # the radar looks east or west
        cover, seen, truth = cover[:, ::-1], seen[..., ::-1], truth[..., ::-1]
    if rng.random() < BORDER_SHARE:
        _cut_swath(rng, seen, truth)
    rows = [int(band in CO_POL) for band in bands]
    cover = np.ascontiguousarray(cover)
    return Patch(stack_db(seen[rows]), stack_db(truth[rows]), cover, incidence)


def labels(patch: Patch) -> list[str]:
    """Return the classes that cover at least 1 % of the valid pixels, in the order of CLASSES."""
    seen = patch.land_cover[np.isfinite(patch.backscatter[..., 0])]
    shares = np.bincount(seen, minlength=len(CLASSES)) / max(seen.size, 1)
    return [name for name, share in zip(CLASSES, shares, strict=True) if share >= LABEL_SHARE]


def _cut_swath(rng: np.random.Generator, seen: np.ndarray, truth: np.ndarray) -> None:
    """Cut (2, size, size) images at the edge of the swath, in place.

    Beyond a line is nodata. In some patches a strip before it holds the low values that resampling
    and noise subtraction leave at the edge. They are not nodata, and hold no signal of the ground,
    so the truth there is their mean level.
    """
    size = seen.shape[-1]
    angle = np.radians(90 * rng.integers(4) + BORDER_TILT_DEG + rng.normal(0, 1.5))
    position = np.arange(size) - (size - 1) / 2
    beyond = (
        position[:, None] * np.sin(angle) + position * np.cos(angle) - rng.uniform(0, 0.45) * size
    )
    strip = (beyond > -rng.uniform(*STRIP_PIXELS)) & (beyond <= 0) & (rng.random() < 0.6)
    level = 10 ** (rng.uniform(*STRIP_DB) / 10)
    truth[:, strip] = level
    seen[:, strip] = level * rng.gamma(4.0, 0.25, (2, strip.sum()))
    seen[:, beyond > 0] = np.nan
    truth[:, beyond > 0] = np.nan


def stack_db(power: np.ndarray) -> np.ndarray:
    """Convert (band, size, size) linear power to (size, size, band) float32 dB."""
    decibel = np.empty((*power.shape[1:], len(power)), np.float32)
    for band, values in enumerate(power):
        decibel[..., band] = linear_to_db(values)
    return decibel


SPLITS = ("train", "validation", "test")
ITEM = np.dtype([("split", np.int8), ("number", np.int32)])


def read_record(size: int, seed: int, bands: tuple[str, ...], item: tuple[int, int]) -> Example:
    """Simulate a record.

    Args:
      size: side in pixels.
      seed: random seed of the dataset.
      bands: names of the bands; see `simulate`.
      item: number of the split, and of the patch in it.
    """
    split, number = item
    patch = simulate(size, (seed, split, number), bands)
    name = f"synthetic_{seed}_{SPLITS[split]}_{number:06d}"
    return {
        "id": name,
        "backscatter": patch.backscatter,
        "labels": records.multi_hot(labels(patch), tuple(CLASSES)),
        "noise_free": patch.noise_free,
        "land_cover": patch.land_cover,
        "water": np.isin(patch.land_cover, WATER).astype(np.uint8),
        "incidence_angle": np.float32(patch.incidence_angle),
    }
