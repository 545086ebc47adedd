"""What predictions must be like before anything is computed from them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from sar_mixmae_jax.errors import InputError, check_name

if TYPE_CHECKING:
    from sar_mixmae_jax.evaluation.predictions import Predictions

TASKS = ("classification", "flood")
KINDS = "biufU"
"""NumPy kinds that a column may have: bool, integers, floats, text."""

FLOOD_COLUMNS = ("before", "after", "sequence")
NAMED = 3
"""Ids that a message names."""


def check(predictions: Predictions) -> None:
    """Refuses predictions that are not as their class describes them.

    Raises:
      InputError: says which field is wrong, and which rows.
    """
    if not isinstance(predictions.task, str):
        raise InputError(f"task is {predictions.task!r}, expected one of {', '.join(TASKS)}")
    check_name(TASKS, predictions.task, "task")
    _check_shapes(predictions)
    _check_values(predictions)
    _check_columns(predictions)
    if predictions.task == "flood":
        _check_floods(predictions)
    if not isinstance(predictions.about, dict):
        raise InputError(f"about is {type(predictions.about).__name__}, expected values by name")
    try:
        json.dumps(predictions.about, allow_nan=False, indent=1)  # as reports write it
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"about is not plain JSON ({error}): give text, numbers, lists") from error


def _check_shapes(predictions: Predictions) -> None:
    ids, classes = predictions.ids, predictions.classes
    if predictions.task == "flood" and classes != ("dry", "flood"):
        raise InputError(f"classes are {classes}, expected ('dry', 'flood') for floods")
    if not all(isinstance(name, str) for name in classes):
        raise InputError(f"classes are {classes}: expected names")
    if not classes or len(set(classes)) < len(classes):
        raise InputError(f"classes are {classes}: expected at least one, each name once")
    if ids.ndim != 1 or ids.dtype.kind != "U" or not len(ids):
        raise InputError(
            f"ids are {ids.dtype} of shape {ids.shape}: expected text, (n,) with at least one row"
        )
    full = (len(ids), len(classes))
    shapes = {"logits": full, "labels": full if predictions.task == "classification" else full[:1]}
    for name, expected in shapes.items():
        array = getattr(predictions, name)
        if array.shape != expected or array.dtype.kind not in "biuf":
            raise InputError(
                f"{name} are {array.dtype} of shape {array.shape}, expected numbers {expected}: "
                f"{len(ids)} ids, {len(classes)} classes"
            )


def _check_values(predictions: Predictions) -> None:
    rows = len(predictions.ids)
    labels = predictions.labels.reshape(rows, -1)
    with np.errstate(over="ignore"):
        logits = predictions.logits.astype(np.float32)
    _refuse(predictions, ~np.isfinite(logits).all(1), "logits are not finite (in float32)")
    _refuse(predictions, ~np.isfinite(labels).all(1), "labels are not finite")
    _refuse(predictions, ~np.isin(labels, (0, 1)).all(1), "labels are neither 0 nor 1")
    unique, first = np.unique(predictions.ids, return_index=True)
    if len(unique) < rows:
        again = np.ones(rows, bool)
        again[first] = False
        _refuse(predictions, again, "ids occur more than once, which would count them twice")


def _check_columns(predictions: Predictions) -> None:
    rows = len(predictions.ids)
    needed = ("group", *(FLOOD_COLUMNS if predictions.task == "flood" else ()))
    if missing := [name for name in needed if name not in predictions.columns]:
        raise InputError(f"columns lack {', '.join(missing)}: found {sorted(predictions.columns)}")
    for name, values in predictions.columns.items():
        if values.shape != (rows,) or values.dtype.kind not in KINDS:
            raise InputError(
                f"column {name!r} is {values.dtype} of shape {values.shape}, expected numbers, "
                f"bool or text of shape ({rows},)"
            )
    group = predictions.columns["group"]
    if group.dtype.kind == "f":
        _refuse(predictions, ~np.isfinite(group), "column 'group' is not finite")


def _check_floods(predictions: Predictions) -> None:
    columns, labels = predictions.columns, predictions.labels
    for name in ("sequence", "after"):
        _, inner = np.unique(columns[name], return_inverse=True)
        leader = np.full(inner.max() + 1, -1)
        leader[inner[::-1]] = predictions.groups[::-1]  # the group of the first row of each
        split = leader[inner] != predictions.groups
        _refuse(predictions, split, f"column {name!r} has values that lie in two groups")
    onset = columns.get("onset")
    if onset is not None:
        if onset.dtype.kind != "b":
            raise InputError(f"column 'onset' is {onset.dtype}, expected bool")
        _refuse(predictions, onset & (labels == 0), "onset is true, but the label is dry")
    fraction = columns.get("flooded_fraction")
    if fraction is not None:
        if fraction.dtype.kind != "f":
            raise InputError(f"column 'flooded_fraction' is {fraction.dtype}, expected float")
        outside = np.asarray((fraction < 0) | (fraction > 1))
        _refuse(predictions, outside, "flooded_fraction is not between 0 and 1")
    case = columns.get("hard_case")
    if case is not None and case.dtype.kind != "U":
        raise InputError(f"column 'hard_case' is {case.dtype}, expected text, '' for none")
    gap = columns.get("gap_days")
    if gap is not None and gap.dtype.kind not in "iuf":
        raise InputError(f"column 'gap_days' is {gap.dtype}, expected numbers")


def _refuse(predictions: Predictions, wrong: np.ndarray | np.bool, what: str) -> None:
    """Refuses rows, naming the first of them."""
    wrong = np.atleast_1d(wrong)
    rows = np.flatnonzero(wrong)
    if len(rows):
        names = ", ".join(map(str, predictions.ids[rows[:NAMED]]))
        more = ", …" if len(rows) > NAMED else ""
        raise InputError(f"{len(rows)} of {len(wrong)} rows: {what}: {names}{more}")
