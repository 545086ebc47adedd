"""What predictions of floods must be like, besides what all must be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.evaluation.checks import refuse

if TYPE_CHECKING:
    from sar_mixmae_jax.evaluation.predictions import Predictions

COLUMNS = ("before", "after", "sequence")


def check(predictions: Predictions) -> None:
    """Refuses pairs that contradict themselves.

    Raises:
      InputError: says which column is wrong, and which rows.
    """
    columns, labels = predictions.columns, predictions.labels
    for name in ("sequence", "after"):
        _, inner = np.unique(columns[name], return_inverse=True)
        leader = np.full(inner.max() + 1, -1)
        leader[inner[::-1]] = predictions.groups[::-1]  # the group of the first row of each
        split = leader[inner] != predictions.groups
        refuse(predictions, split, f"column {name!r} has values that lie in two groups")
    onset = columns.get("onset")
    if onset is not None:
        if onset.dtype.kind != "b":
            raise InputError(f"column 'onset' is {onset.dtype}, expected bool")
        refuse(predictions, onset & (labels == 0), "onset is true, but the label is dry")
    fraction = columns.get("flooded_fraction")
    if fraction is not None:
        if fraction.dtype.kind != "f":
            raise InputError(f"column 'flooded_fraction' is {fraction.dtype}, expected float")
        outside = np.asarray((fraction < 0) | (fraction > 1))
        refuse(predictions, outside, "flooded_fraction is not between 0 and 1")
    case = columns.get("hard_case")
    if case is not None and case.dtype.kind != "U":
        raise InputError(f"column 'hard_case' is {case.dtype}, expected text, '' for none")
    gap = columns.get("gap_days")
    if gap is not None and gap.dtype.kind not in "iuf":
        raise InputError(f"column 'gap_days' is {gap.dtype}, expected numbers")
