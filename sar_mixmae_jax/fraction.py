"""A part of the labels: stratified, seeded and nested, for comparisons with few labels."""

from collections.abc import Sequence

import numpy as np

from sar_mixmae_jax.errors import InputError


def choose(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which units keep their labels.

    A unit belongs to the stratum of its rarest class; of every stratum the same share is taken, in
    a random order. With one seed, a smaller fraction takes a part of what a larger one takes.

    Args:
      labels: (units, classes) 1 where a unit has a class; units without any are a stratum too.
      fraction: of the units, above 0, at most 1.
      seed: of the order.

    Returns:
      (units,) bool.
    """
    if fraction >= 1:
        return np.ones(len(labels), bool)
    count = labels.sum(0).astype(float)
    rarity = np.where(labels > 0, count, np.inf)
    stratum = np.where(labels.any(1), rarity.argmin(1), labels.shape[1])
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for number in range(labels.shape[1] + 1):
        members = np.flatnonzero(stratum == number)
        place[members] = (rng.permutation(len(members)) + 0.5) / max(len(members), 1)
    return place < fraction


def emptied(labels: np.ndarray, chosen: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The classes that had units and have none among the chosen."""
    lost = labels.any(0) & ~labels[chosen].any(0)
    return [name for name, is_lost in zip(classes, lost, strict=True) if is_lost]


def check_fraction(fraction: float) -> None:
    """Refuses what is no share.

    Raises:
      InputError: it is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"label_fraction is {fraction}: expected above 0 and at most 1")
