"""Contrast of the loss weights of every weighting on a sample of patches, before training."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sar_mixmae_jax.objectives.diagnostics import Contrast, contrast, flat_fraction
from sar_mixmae_jax.objectives.preprocess import Preprocessing, preprocess
from sar_mixmae_jax.objectives.weighting import WEIGHTINGS, Weighting

IMAGE_SIZE = 128
"""Input side of the default pretraining, to which patches are resized, pixels."""

CHUNK = 32
"""Patches per call of the compiled function."""


class WeightContrast(NamedTuple):
    """Contrast of the weights of a weighting.

    Attributes:
      name: an entry of `WEIGHTINGS`, with the settings that are not the defaults.
      domain: domain in which power is computed, "physical" or "standardised".
      cv: (band,) median over patches of the coefficient of variation of the weights.
      dark_bright: (band,) median ratio of the mean weights in the darkest and brightest decile.
      flat: (band,) share of patches whose weights are nearly constant.
    """

    name: str
    domain: str
    cv: list[float]
    dark_bright: list[float]
    flat: list[float]


def weight_contrasts(
    patches: Iterable[np.ndarray], mean: Sequence[float], std: Sequence[float]
) -> list[WeightContrast]:
    """Compute the contrast of the loss weights for all weightings.

    Args:
      patches: (row, column, band) backscatter in dB, all of one size.
      mean: (band,) mean with which training standardises, dB.
      std: (band,) standard deviation, dB; unless all are finite and positive, the standardised
        domain is left out.
    """
    weightings = [Weighting(name, "physical") for name in WEIGHTINGS]
    weightings.append(Weighting("per_channel", "physical", clip=(1.0, 99.0)))  # robust forms
    weightings.append(Weighting("per_channel", "physical", power_domain="db", clip=(1.0, 99.0)))
    if np.isfinite([mean, std]).all() and (np.array(std) > 0).all():
        weightings.append(Weighting("per_channel", "standardised"))  # the default
        weightings.append(Weighting("shared_average", "standardised"))
    else:
        mean, std = [0.0] * len(mean), [1.0] * len(std)  # the physical domain does not use them
    settings = [
        Preprocessing(IMAGE_SIZE, tuple(mean), tuple(std), weighting, random_flip=False)
        for weighting in weightings
    ]

    @jax.jit
    def contrasts(db: jax.Array) -> list[Contrast]:
        return [contrast(preprocess(db, jax.random.key(0), each)) for each in settings]

    chunks = [contrasts(jnp.asarray(chunk, jnp.float32)) for chunk in _chunks(patches)]
    rows = []
    for number, weighting in enumerate(weightings):
        cv = jnp.concatenate([chunk[number].cv for chunk in chunks])
        dark_bright = jnp.concatenate([chunk[number].dark_bright for chunk in chunks])
        rows.append(
            WeightContrast(
                _title(weighting),
                weighting.domain,
                jnp.nanmedian(cv, 0).tolist(),
                jnp.nanmedian(dark_bright, 0).tolist(),
                flat_fraction(cv).tolist(),
            )
        )
    return rows


def _title(weighting: Weighting) -> str:
    """Return the name of a weighting with the settings that are not the defaults."""
    clip = f", clip={weighting.clip}" if weighting.clip else ""
    domain = f", power_domain={weighting.power_domain}" if weighting.power_domain == "db" else ""
    return f"{weighting.name}{domain}{clip}"


def _chunks(patches: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    """Yield (chunk, row, column, band) arrays."""
    chunk: list[np.ndarray] = []
    for patch in patches:
        chunk.append(patch)
        if len(chunk) == CHUNK:
            yield np.stack(chunk)
            chunk = []
    if chunk:
        yield np.stack(chunk)
