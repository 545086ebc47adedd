"""What every weighting of the loss does to a sample of patches, before anything is trained."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs import pretrain
from sar_mixmae_jax.objectives.diagnostics import Contrast, contrast, flat_fraction
from sar_mixmae_jax.objectives.preprocess import Preprocessing, preprocess
from sar_mixmae_jax.objectives.weighting import WEIGHTINGS, Weighting

CHUNK = 32
"""Patches that are on the device at once."""


class Row(NamedTuple):
    """What a weighting does; one number for each band.

    Attributes:
      name: an entry of `WEIGHTINGS`.
      domain: in which power is computed.
      cv: median over patches of the coefficient of variation of their weights.
      dark_bright: median of the mean weight in the darkest over that in the brightest decile.
      flat: share of patches whose weights are nearly constant.
    """

    name: str
    domain: str
    cv: list[float]
    dark_bright: list[float]
    flat: list[float]


def weight_table(
    patches: Iterable[np.ndarray], mean: Sequence[float], std: Sequence[float]
) -> list[Row]:
    """Weighs patches as `configs/pretrain.py` would, in all weightings.

    Args:
      patches: (row, column, band) backscatter in dB, all of one size.
      mean: with which training standardises, dB.
      std: the same; where they cannot be used, the standardised domain is left out.
    """
    weightings = [Weighting(name) for name in WEIGHTINGS]
    weightings.append(Weighting("per_channel", clip=(1.0, 99.0)))  # robust forms
    weightings.append(Weighting("per_channel", power_domain="db", clip=(1.0, 99.0)))
    if np.isfinite([mean, std]).all() and (np.array(std) > 0).all():
        weightings.append(Weighting("per_channel", domain="standardised"))
        weightings.append(Weighting("shared_average", domain="standardised"))  # the released code
    else:
        mean, std = [0.0] * len(mean), [1.0] * len(std)  # physical weights know nothing of them
    recipe = pretrain.get_config()
    settings = Preprocessing(
        image_size=recipe.model.image_size,
        resize_mode=recipe.resize_mode,
        random_flip=False,
        mean=tuple(mean),
        std=tuple(std),
        weighting=weightings[0],
    )
    every = [dataclasses.replace(settings, weighting=weighting) for weighting in weightings]

    @jax.jit
    def contrasts(db: jax.Array) -> list[Contrast]:
        return [contrast(preprocess(db, jax.random.key(0), one)) for one in every]

    found = [contrasts(jnp.asarray(chunk, jnp.float32)) for chunk in _chunks(patches)]
    rows = []
    for number, weighting in enumerate(weightings):
        cv = jnp.concatenate([chunk[number].cv for chunk in found])
        dark_bright = jnp.concatenate([chunk[number].dark_bright for chunk in found])
        rows.append(
            Row(
                _title(weighting),
                weighting.domain,
                jnp.nanmedian(cv, 0).tolist(),
                jnp.nanmedian(dark_bright, 0).tolist(),
                flat_fraction(cv).tolist(),
            )
        )
    return rows


def _title(weighting: Weighting) -> str:
    """The name of a weighting, with the settings that differ from the defaults."""
    clip = f", clip={weighting.clip}" if weighting.clip else ""
    domain = f", power_domain={weighting.power_domain}" if weighting.power_domain == "db" else ""
    return f"{weighting.name}{domain}{clip}"


def _chunks(patches: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    """(chunk, row, column, band) arrays."""
    chunk: list[np.ndarray] = []
    for patch in patches:
        chunk.append(patch)
        if len(chunk) == CHUNK:
            yield np.stack(chunk)
            chunk = []
    if chunk:
        yield np.stack(chunk)
