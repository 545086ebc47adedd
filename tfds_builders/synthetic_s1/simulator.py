"""A first simulator of Sentinel-1 IW GRD patches: regions, texture, speckle, noise, nodata.

Backscatter of a region is drawn around the typical value of its land cover; K-distributed texture
is shared by the bands; speckle is independent between them, gamma distributed and correlated as in
resampled products; thermal noise is added before the speckle and subtracted after it, as the
processor does. All images are (row, column, band), bands VH and VV.
"""

import dataclasses
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import gammaincinv, ndtr


@dataclasses.dataclass(frozen=True)
class LandCover:
    """How a class looks: typical backscatter in dB, its spread between regions, its texture.

    Attributes:
      vh: typical VH backscatter, dB.
      vv: typical VV backscatter, dB.
      texture: order of the gamma texture; larger is smoother.
      share: how often a region is of this class.
      targets: share of pixels that hold a point target.
    """

    vh: float
    vv: float
    texture: float
    share: float
    targets: float = 0.0


CLASSES = {
    "Calm water": LandCover(vh=-28.0, vv=-21.0, texture=100.0, share=0.08),
    "Wind-roughened water": LandCover(vh=-26.0, vv=-14.5, texture=50.0, share=0.08),
    "Crops and bare soil": LandCover(vh=-19.0, vv=-12.0, texture=12.0, share=0.35),
    "Forest": LandCover(vh=-13.5, vv=-8.0, texture=15.0, share=0.30),
    "Urban": LandCover(vh=-11.0, vv=-4.0, texture=2.0, share=0.08, targets=0.002),
    "Wetland": LandCover(vh=-18.0, vv=-11.0, texture=8.0, share=0.11),
}

REGION_STD_DB = 2.0  # between regions of one class, both bands together
BAND_STD_DB = 0.7  # between regions of one class, each band alone
REGIONS = (3, 8)  # fewest and most regions in a patch
LABEL_SHARE = 0.01  # a class is a label where it covers at least this share of the patch
TEXTURE_SIGMA = 4.0  # pixels: correlated over 50 to 200 m
LOOKS = 6.5  # equivalent looks of the product; real calm windows have 6 to 9
SPECKLE_SIGMA = 1.12  # pixels: autocorrelation exp(-d² / 2σ²), .67 at lag 1 and .20 at lag 2
NOISE_DB = (-28.0, -22.0)  # noise-equivalent sigma0, between patches
NOISE_SLOPE_DB = 1.0  # change across a patch in range, at most
RESIDUE = 0.15  # of the signal is left where noise subtraction reaches zero, after resampling
TARGET_VH_DB = -8.0  # of a point target in VH against VV
BORDER_SHARE = 0.1  # of patches are cut by the edge of the swath


class Patch(NamedTuple):
    """A simulated patch.

    Attributes:
      backscatter: (size, size, 2) float32 dB, NaN = nodata.
      noise_free: the same without speckle and noise.
      classes: names of the land covers in it.
    """

    backscatter: np.ndarray
    noise_free: np.ndarray
    classes: list[str]


def simulate(size: int, seed: tuple[int, ...]) -> Patch:
    """Simulates a patch of `size` pixels a side; the same seed gives the same patch."""
    rng = np.random.default_rng(seed)
    covers = list(CLASSES.values())
    region, region_class = _regions(rng, size)
    cover_map = region_class[region]  # (size, size)
    sigma0 = _backscatter(rng, region, region_class)
    texture = _texture(rng, np.array([cover.texture for cover in covers]), cover_map)
    targets = _point_targets(rng, np.array([cover.targets for cover in covers])[cover_map])
    sigma0 = sigma0 * texture[..., None]
    noise = _noise(rng, size)
    speckle = np.stack([_speckle(rng, size) for _ in range(2)], axis=-1)
    speckled = sigma0 * speckle
    measured = np.maximum(speckled + noise * (speckle - 1.0), RESIDUE * speckled) + targets
    seen = _swath(rng, size)
    shares = np.bincount(cover_map[seen], minlength=len(covers)) / max(seen.sum(), 1)
    names = [name for name, share in zip(CLASSES, shares, strict=True) if share >= LABEL_SHARE]
    return Patch(_to_db(measured, seen), _to_db(sigma0 + targets, seen), names)


def _regions(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A map of region numbers with curved borders, and the class number of each region."""
    count = rng.integers(REGIONS[0], REGIONS[1] + 1)
    centres = rng.uniform(0, size, (count, 2))
    wobble = 0.08 * size * np.stack([_smooth(rng, size, size / 12) for _ in range(2)], axis=-1)
    place = np.moveaxis(np.mgrid[:size, :size], 0, -1) + wobble
    distance = np.square(place[:, :, None] - centres).sum(-1)  # row, column, region
    shares = [cover.share for cover in CLASSES.values()]
    return distance.argmin(-1), rng.choice(len(CLASSES), size=count, p=shares)


def _backscatter(
    rng: np.random.Generator, region: np.ndarray, region_class: np.ndarray
) -> np.ndarray:
    """Linear power of every pixel before texture: (size, size, 2)."""
    typical = np.array([(cover.vh, cover.vv) for cover in CLASSES.values()])[region_class]
    together = rng.normal(0, REGION_STD_DB, (len(region_class), 1))
    apart = rng.normal(0, BAND_STD_DB, (len(region_class), 2))
    return (10.0 ** ((typical + together + apart) / 10.0))[region]


def _texture(rng: np.random.Generator, orders: np.ndarray, cover_map: np.ndarray) -> np.ndarray:
    """Correlated gamma texture of unit mean, of the order of each pixel's class."""
    field = _smooth(rng, len(cover_map), TEXTURE_SIGMA)
    nodes = np.linspace(-4.5, 4.5, 181)
    texture = np.empty_like(field)
    for number in np.unique(cover_map):
        of_class = cover_map == number
        quantiles = gammaincinv(orders[number], ndtr(nodes)) / orders[number]
        texture[of_class] = np.interp(field[of_class], nodes, quantiles)
    return texture


def _point_targets(rng: np.random.Generator, share: np.ndarray) -> np.ndarray:
    """Power of corner reflectors, 0 to +20 dB in VV, over a resolution cell: (size, size, 2).

    A point target dominates its cell and does not speckle.
    """
    hit = rng.random(share.shape) < share
    power = np.where(hit, 10.0 ** rng.uniform(0.0, 2.0, share.shape), 0.0)
    kernel = _kernel(len(share), 0.6)
    spread = kernel @ power @ kernel.T / kernel.max() ** 2
    return spread[..., None] * np.array([10.0 ** (TARGET_VH_DB / 10.0), 1.0])


def _noise(rng: np.random.Generator, size: int) -> np.ndarray:
    """Noise-equivalent sigma0, linear, a trend across range: (1, size, 1)."""
    slope = rng.uniform(-NOISE_SLOPE_DB, NOISE_SLOPE_DB)
    level = rng.uniform(*NOISE_DB) + slope * np.linspace(-0.5, 0.5, size)
    return (10.0 ** (level / 10.0))[None, :, None]


def _speckle(rng: np.random.Generator, size: int) -> np.ndarray:
    """Multi-look intensity of unit mean, correlated: (size, size).

    A sum of squared Gaussian fields; each field counts for half a look, two make a complex one.
    """
    kernel = _kernel(size, SPECKLE_SIGMA).astype(np.float32)
    noise = rng.standard_normal((round(2 * LOOKS), size, size), dtype=np.float32)
    fields = kernel @ noise @ kernel.T
    return np.square(fields).mean(axis=0)


def _swath(rng: np.random.Generator, size: int) -> np.ndarray:
    """True inside the swath: everywhere, or on one side of a slanted line."""
    if rng.random() >= BORDER_SHARE:
        return np.ones((size, size), bool)
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    along = rows * np.sin(angle) + columns * np.cos(angle)
    return along < rng.uniform(0.1, 0.45) * size


def _to_db(power: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """float32 dB, NaN outside the swath."""
    db = 10.0 * np.log10(power)
    return np.where(seen[..., None], db, np.nan).astype(np.float32)


def _smooth(rng: np.random.Generator, size: int, sigma: float) -> np.ndarray:
    """A Gaussian random field of unit variance, correlated over about `sigma` pixels."""
    kernel = _kernel(size, sigma)
    return kernel @ rng.standard_normal((size, size)) @ kernel.T


@cache
def _kernel(size: int, sigma: float) -> np.ndarray:
    """A Gaussian filter along one axis as a matrix that keeps the variance of white noise."""
    place = np.arange(size)
    kernel = np.exp(-np.square(place[:, None] - place[None, :]) / (2 * sigma**2))
    return kernel / np.linalg.norm(kernel, axis=1, keepdims=True)
