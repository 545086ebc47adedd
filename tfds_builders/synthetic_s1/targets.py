"""Point targets: buildings, farms, pylons and ships, far brighter than what is around them."""

import numpy as np

from tfds_builders.synthetic_s1.land_cover import CLASSES

LEVEL_DB = (-4.0, 20.0)  # in VV over a resolution cell; weak ones are more frequent
VH_DB = (-13.0, -4.0)  # in VH against VV
REACH = 3  # pixels around a target on which its response is computed
RESOLUTION = 1.5  # pixels: peak to first zero of the response, before resampling


def point_targets(rng: np.random.Generator, cover: np.ndarray) -> np.ndarray:
    """Draws targets by the density of each class, somewhere inside their pixels.

    Args:
      rng: where they come from.
      cover: class of every pixel, (size, size).

    Returns:
      (2, size, size) float32 linear power, each target spread by the response of the instrument.
    """
    size = len(cover)
    density = np.array([cover.targets for cover in CLASSES.values()], np.float32)
    hit = np.flatnonzero(rng.random(cover.shape, np.float32) < density.take(cover))
    vv = LEVEL_DB[0] + (LEVEL_DB[1] - LEVEL_DB[0]) * rng.random(len(hit)) ** 2
    power = 10 ** (np.stack([vv + rng.uniform(*VH_DB, len(hit)), vv]) / 10)
    near = np.arange(-REACH, REACH + 1)
    inside = rng.uniform(-0.5, 0.5, (2, len(hit), 1))  # row and column within the pixel
    rows, columns = np.sinc((near - inside) / RESOLUTION) ** 2  # (target, pixel)
    response = rows[:, :, None] * columns[:, None, :]
    width = size + 2 * REACH
    corner = hit // size * width + hit % size
    place = corner[:, None, None] + (near + REACH)[:, None] * width + near + REACH
    images = [
        np.bincount(place.ravel(), (band[:, None, None] * response).ravel(), width**2)
        for band in power
    ]
    inner = np.stack(images).reshape(2, width, width)[:, REACH:-REACH, REACH:-REACH]
    return inner.astype(np.float32)
