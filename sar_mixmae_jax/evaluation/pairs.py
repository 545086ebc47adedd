"""Pairs of images worth looking at: the surest answers, right and wrong."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.evaluation.metrics import THRESHOLD

if TYPE_CHECKING:
    from sar_mixmae_jax.evaluation.predictions import Predictions

KINDS = ("floods found", "dry and said so", "floods missed", "false alarms")
EXAMPLES = 3
"""Pairs of each kind, at most."""


@dataclasses.dataclass(frozen=True, eq=False)
class PairPicture:
    """Two dates of one place.

    Attributes:
      before: (row, column, 2) dB, bands VH and VV, NaN = nodata.
      after: the same place later.
      water: (row, column) 0 dry, 1 where water is new after, 2 where it is on both dates; None if
        unknown.
      evidence: (rows, columns) of tiles: logit of flood minus logit of dry; None if unknown.
    """

    before: np.ndarray
    after: np.ndarray
    water: np.ndarray | None = None
    evidence: np.ndarray | None = None


def check(picture: PairPicture, pair: str) -> None:
    """Refuses a picture that cannot be drawn.

    Args:
      picture: of the pair.
      pair: its id, for the message.

    Raises:
      InputError: shapes do not fit, water is of no known class, or evidence is not finite.
    """
    shape = picture.before.shape
    if len(shape) != 3 or shape[2] != 2 or not shape[0] * shape[1] or picture.after.shape != shape:
        raise InputError(
            f"the picture of {pair} has shapes {shape} and {picture.after.shape}: expected "
            "(row, column, 2) for both dates"
        )
    if picture.water is not None and picture.water.shape != shape[:2]:
        raise InputError(
            f"the picture of {pair} has water of shape {picture.water.shape}, expected {shape[:2]}"
        )
    if picture.water is not None and not np.isin(picture.water, (0, 1, 2)).all():
        raise InputError(
            f"the picture of {pair} has water with other values than 0 (dry), 1 (new), 2 (both)"
        )
    evidence = picture.evidence
    if evidence is not None and (evidence.ndim != 2 or not np.isfinite(evidence).all()):
        raise InputError(
            f"the picture of {pair} has evidence of shape {evidence.shape}: expected finite values "
            "(rows, columns)"
        )


def choose(predictions: Predictions, count: int = EXAMPLES) -> dict[str, list[int]]:
    """Numbers of the pairs of each of `KINDS`, the surest answer first.

    Of a sequence only its surest pair is taken: the others are nearly the same picture.

    Args:
      predictions: of floods.
      count: pairs of each kind, at most.
    """
    probability = predictions.probabilities
    said, true = probability > THRESHOLD, predictions.labels == 1
    of_kind = dict(
        zip(KINDS, (said & true, ~said & ~true, ~said & true, said & ~true), strict=True)
    )
    order = np.argsort(-np.abs(probability - THRESHOLD), kind="stable")
    sequence = predictions.columns["sequence"]
    chosen = {}
    for kind, wanted in of_kind.items():
        rows = order[wanted[order]]
        _, first = np.unique(sequence[rows], return_index=True)
        chosen[kind] = [int(row) for row in rows[np.sort(first)[:count]]]
    return chosen
