"""Sequences that share Sentinel-1 products: which are not independent, and a split between them."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

TRIALS = 2_000
"""Orders of the groups that are tried for a split."""


class Weight(NamedTuple):
    """What a sequence brings to a split.

    Attributes:
      dry: pairs without a flood.
      flooded: pairs with one.
    """

    dry: int
    flooded: int


def components(products: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """The group of every sequence, under the name of the group's first one.

    Two sequences that have a product in common are in one group, and so are those that are linked
    through others.

    Args:
      products: of every sequence.
    """
    leader = {sequence: sequence for sequence in products}

    def first(sequence: str) -> str:
        while leader[sequence] != sequence:
            leader[sequence] = leader[leader[sequence]]
            sequence = leader[sequence]
        return sequence

    owner: dict[str, str] = {}
    for sequence in sorted(products):
        for product in products[sequence]:
            one, other = sorted((first(sequence), first(owner.setdefault(product, sequence))))
            leader[other] = one
    return {sequence: first(sequence) for sequence in products}


def cut(
    groups: Mapping[str, str], weights: Mapping[str, Weight], share: float, seed: int
) -> set[str]:
    """Sequences for validation: whole groups, about a share of all, with floods as often as in all.

    Of many random choices that are about as large as they should be, the one is taken that is
    nearest to the share and to the balance; both sides keep a pair, and of both classes if that is
    possible.

    Args:
      groups: the group of every sequence.
      weights: the pairs of every sequence.
      share: of the sequences.
      seed: of the choices.

    Returns:
      The sequences; none where no choice leaves a pair on both sides.
    """
    names = sorted(set(groups.values()))
    members = {name: sorted(s for s, group in groups.items() if group == name) for name in names}
    size = np.array([len(members[name]) for name in names], float)
    pairs = np.array([np.sum([weights[s] for s in members[name]], axis=0) for name in names], float)
    rng = np.random.default_rng(seed)
    best, chosen = np.inf, np.zeros(len(names), bool)
    for _ in range(TRIALS if share > 0 and len(names) > 1 else 0):
        order = rng.permutation(len(names))
        total = np.cumsum(size[order])
        count = int(np.abs(total[:-1] - share * size.sum()).argmin()) + 1
        picked = np.zeros(len(names), bool)
        picked[order[:count]] = True
        cost = _cost(size, pairs, picked, share)
        if cost < best:
            best, chosen = cost, picked
    return {s for name, taken in zip(names, chosen, strict=True) if taken for s in members[name]}


def _cost(size: np.ndarray, pairs: np.ndarray, picked: np.ndarray, share: float) -> float:
    """How far a choice is from what is wanted; infinite if a side has no pair."""
    inside, outside = pairs[picked].sum(0), pairs[~picked].sum(0)
    if not inside.sum() or not outside.sum():
        return np.inf
    absent = (inside == 0).sum() + (outside == 0).sum()
    balance = abs(inside[1] / inside.sum() - pairs.sum(0)[1] / pairs.sum())
    return float(absent + balance + abs(size[picked].sum() / size.sum() - share))
