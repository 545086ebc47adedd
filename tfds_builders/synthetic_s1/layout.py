"""Where what lies: parcels, forest, settlements and water, painted one over the other.

What has straight borders comes from a mosaic of parcels; what has irregular ones from a random
field cut at a level.
"""

import numpy as np
from scipy.special import ndtri

from tfds_builders.synthetic_s1.fields import fractal, smooth
from tfds_builders.synthetic_s1.land_cover import LANDSCAPES, NUMBER, Landscape

SHORE_STEPS = {36: 1.0, 13: 0.4, 4: 0.13}  # of lakes and coasts
FOREST_STEPS = {26: 1.0, 8: 0.5, 3: 0.25}
URBAN_STEPS = {22: 1.0, 5: 0.5}
WIND_STEP = 30  # pixels between grid points of gusts and shelter


def pick(rng: np.random.Generator) -> Landscape:
    """Draws a landscape by the shares of `LANDSCAPES`."""
    landscapes = tuple(LANDSCAPES.values())
    shares = np.array([landscape.share for landscape in landscapes])
    return landscapes[rng.choice(len(landscapes), p=shares / shares.sum())]


def parcels(rng: np.random.Generator, size: int, landscape: Landscape) -> tuple[np.ndarray, int]:
    """Fields in strips of a common orientation: the number of each pixel's, and how many."""
    place = np.arange(size, dtype=np.float32) - size / 2
    rows, columns = np.float32(landscape.warp) * smooth(rng, 2, size, 20)
    across, along = _rotate(rows + place[:, None], columns + place, rng.uniform(0, np.pi))
    extent = 2 * size + 40
    length = rng.uniform(*landscape.parcel)
    strip = _cuts(rng, 1, extent, length / 1.6)[0][_index(across, extent)]
    strips = int(strip.max()) + 1
    cells = _cuts(rng, strips, extent, length)
    cells[1:] += np.cumsum(cells[:-1, -1] + 1, dtype=np.int32)[:, None]
    skew = rng.normal(0, 0.1, strips).astype(np.float32)  # corners are not all square
    region = cells[strip, _index(along + skew[strip] * across, extent)]
    return region, int(cells[-1, -1]) + 1


def _rotate(rows: np.ndarray, columns: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return columns * cosine + rows * sine, rows * cosine - columns * sine


def _index(place: np.ndarray, extent: int) -> np.ndarray:
    """Pixels from the middle of the scene to entries of a table."""
    return np.clip((place + extent / 2).astype(np.int32), 0, extent - 1)


def _cuts(rng: np.random.Generator, rows: int, extent: int, mean: float) -> np.ndarray:
    """Cuts lines into pieces of random length: the piece at each place, (rows, extent)."""
    lengths = mean * rng.lognormal(-0.1, 0.45, (rows, int(2 * extent / mean) + 4))
    ends = np.cumsum(np.maximum(lengths, 4), axis=1) - rng.uniform(0, mean, (rows, 1))
    starts = np.zeros((rows, extent + 1), np.int32)
    row = np.broadcast_to(np.arange(rows)[:, None], ends.shape)
    starts[row, np.clip(ends, 0, extent).astype(np.int32)] = 1  # what is past the end is cut off
    return np.cumsum(starts[:, :extent], axis=1, dtype=np.int32)


def land(
    rng: np.random.Generator, region: np.ndarray, count: int, landscape: Landscape
) -> np.ndarray:
    """Class of every pixel of a scene without water.

    Args:
      rng: where it comes from.
      region: number of the parcel of every pixel, (size, size).
      count: of parcels.
      landscape: what it is made of.
    """
    size = len(region)
    names, weights = zip(*landscape.parcels.items(), strict=True)
    drawn = rng.choice([NUMBER[name] for name in names], count, p=np.array(weights))
    cover = drawn.astype(np.uint8)[region]
    woods = fractal(rng, size, FOREST_STEPS)[0]
    own = rng.standard_normal(count, dtype=np.float32)[region]  # borders follow parcels in part
    cover[above(0.75 * woods + 0.66 * own, rng.uniform(*landscape.forest))] = NUMBER["Forest"]
    if (urban := rng.uniform(*landscape.urban)) > 0.002:
        cover[above(fractal(rng, size, URBAN_STEPS)[0], urban)] = NUMBER["Urban"]
    return cover


def roughened(rng: np.random.Generator, size: int) -> np.ndarray:
    """Where the wind roughens water, if there is any: shores shelter from it, (size, size) bool."""
    return smooth(rng, 1, size, WIND_STEP)[0] > rng.normal(0, 2.5)


def flood(cover: np.ndarray, water: np.ndarray, rough: np.ndarray) -> np.ndarray:
    """Classes with water over them where `water`, wind-roughened where `rough`."""
    calm, wind = NUMBER["Calm water"], NUMBER["Wind-roughened water"]
    return np.where(water, np.where(rough, np.uint8(wind), np.uint8(calm)), cover)


def above(field: np.ndarray, share: float) -> np.ndarray:
    """Where a standard normal field is in its upper `share`."""
    return field > np.float32(ndtri(1 - share))


def line(rng: np.random.Generator, size: int, bend: float) -> np.ndarray:
    """Signed distance in pixels from a line through the scene, bent by about `bend` pixels."""
    place = np.arange(size, dtype=np.float32) - size / 2
    across, _ = _rotate(place[:, None], place, rng.uniform(0, 2 * np.pi))
    offset = np.float32(rng.uniform(-0.4, 0.4) * size)
    return across + offset + np.float32(bend) * smooth(rng, 1, size, 40)[0]


def water_body(rng: np.random.Generator, size: int, landscape: Landscape) -> np.ndarray | None:
    """Where there is water: a lake, a river, the sea, or None."""
    drawn = rng.random()
    lake, river, coast = np.cumsum(landscape.water)
    if drawn < lake:
        return above(fractal(rng, size, SHORE_STEPS)[0], rng.uniform(0.03, 0.4))
    if drawn < river:
        return np.abs(line(rng, size, bend=12.0)) < 10 ** rng.uniform(0.0, 1.1)
    if drawn < coast:
        return line(rng, size, bend=0.0) + 14 * fractal(rng, size, SHORE_STEPS)[0] > 0
    return None
