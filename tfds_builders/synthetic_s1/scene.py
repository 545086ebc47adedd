"""The ground of a patch: what lies where, and the backscatter of each pixel."""

from typing import NamedTuple

import numpy as np

from tfds_builders.synthetic_s1 import backscatter, layout
from tfds_builders.synthetic_s1.fields import fractal


class Ground(NamedTuple):
    """A scene before the instrument.

    Attributes:
      cover: class of every pixel, (size, size) uint8.
      power: linear backscatter with texture, without point targets, (2, size, size) float32.
    """

    cover: np.ndarray
    power: np.ndarray


def ground(rng: np.random.Generator, size: int, incidence: float) -> Ground:
    """Draws a scene seen under an incidence angle in degrees; near range is at column 0."""
    landscape = layout.pick(rng)
    region, count = layout.parcels(rng, size, landscape)
    cover = layout.land(rng, region, count, landscape)
    water = layout.water_body(rng, size, landscape)
    if water is not None:
        cover = layout.flood(cover, water, layout.roughened(rng, size))
    decibel = backscatter.means(rng, cover, region, count, incidence)
    decibel += backscatter.shape(rng, cover, region, landscape)
    texture = fractal(rng, size, backscatter.TEXTURE_STEPS)[0]
    return Ground(cover, backscatter.power(decibel, cover, texture))
