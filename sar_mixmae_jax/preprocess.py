"""From raw dB to what model and loss need, on the device: fit, flip, weigh, standardise."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sar_mixmae_jax.errors import look_up
from sar_mixmae_jax.radiometry import TO_DB, standardise, valid_pixels
from sar_mixmae_jax.spatial import FITS, random_flips
from sar_mixmae_jax.weighting import Weighting, loss_weights

NO_WEIGHTING = Weighting("none")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What happens to a batch on the device.

    Attributes:
      image_size: input side of the model in pixels.
      fit: an entry of `spatial.FITS`: "resize" or "pad".
      flips: whether to flip at random.
      mean: mean of each band, dB.
      std: standard deviation of each band, dB.
      weighting: how the loss is weighted; of no meaning where nothing is reconstructed.
      unit: of the raw batch, an entry of `radiometry.TO_DB`.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weighting: Weighting = NO_WEIGHTING
    fit: str = "resize"
    flips: bool = True
    unit: str = "dB"

    def __post_init__(self) -> None:
        look_up(FITS, self.fit, "fit")
        look_up(TO_DB, self.unit, "unit")


class Prepared(NamedTuple):
    """A batch ready for the model; all arrays are (batch, height, width, band).

    Attributes:
      images: standardised, 0 at nodata.
      weights: of the loss, 0 at nodata.
      valid: True where measured.
    """

    images: jax.Array
    weights: jax.Array
    valid: jax.Array


def preprocess(raw: jax.Array, key: jax.Array, settings: Preprocessing) -> Prepared:
    """Prepares a batch of raw backscatter.

    Args:
      raw: (batch, height, width, band) in `settings.unit`, float32 or float16, nodata not finite.
      key: for the flips.
      settings: what to do.
    """
    db = TO_DB[settings.unit](raw.astype(jnp.float32))
    db = FITS[settings.fit](db, settings.image_size)
    if settings.flips:
        db = random_flips(db, key)
    valid = valid_pixels(db)
    images = standardise(db, jnp.array(settings.mean), jnp.array(settings.std))
    weights = loss_weights(db, images, valid, settings.weighting)
    return Prepared(images, weights, valid)
