"""What predictions must be like before anything is computed from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sar_mixmae_jax.errors import InputError, look_up

if TYPE_CHECKING:
    from sar_mixmae_jax.evaluation.kinds import Kind
    from sar_mixmae_jax.evaluation.predictions import Predictions

COLUMNS = "biufU"
"""NumPy kinds that a column may have: bool, integers, floats, text."""

NAMED = 3
"""Ids that a message names."""


def check(predictions: Predictions, kinds: Mapping[str, Kind]) -> None:
    """Refuses predictions that are not as their class describes them.

    Args:
      predictions: of whatever.
      kinds: that there are.

    Raises:
      InputError: says which field is wrong, and which rows.
    """
    if not isinstance(predictions.task, str):
        raise InputError(f"task is {predictions.task!r}, expected one of {', '.join(kinds)}")
    kind = look_up(dict(kinds), predictions.task, "task")
    _check_shapes(predictions, kind)
    _check_values(predictions)
    _check_columns(predictions, kind)
    kind.check(predictions)
    if not isinstance(predictions.about, dict):
        raise InputError(f"about is {type(predictions.about).__name__}, expected values by name")
    try:
        json.dumps(predictions.about, allow_nan=False, indent=1)  # as reports write it
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"about is not plain JSON ({error}): give text, numbers, lists") from error


def _check_shapes(predictions: Predictions, kind: Kind) -> None:
    ids, classes = predictions.ids, predictions.classes
    if kind.classes not in (None, classes):
        raise InputError(f"classes are {classes}, expected {kind.classes} for {predictions.task}")
    if not all(isinstance(name, str) for name in classes):
        raise InputError(f"classes are {classes}: expected names")
    if not classes or len(set(classes)) < len(classes):
        raise InputError(f"classes are {classes}: expected at least one, each name once")
    if ids.ndim != 1 or ids.dtype.kind != "U" or not len(ids):
        raise InputError(
            f"ids are {ids.dtype} of shape {ids.shape}: expected text, (n,) with at least one row"
        )
    full = (len(ids), len(classes))
    shapes = {"logits": full, "labels": full[:1] if kind.exclusive else full}
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
    refuse(predictions, ~np.isfinite(logits).all(1), "logits are not finite (in float32)")
    refuse(predictions, ~np.isfinite(labels).all(1), "labels are not finite")
    refuse(predictions, ~np.isin(labels, (0, 1)).all(1), "labels are neither 0 nor 1")
    unique, first = np.unique(predictions.ids, return_index=True)
    if len(unique) < rows:
        again = np.ones(rows, bool)
        again[first] = False
        refuse(predictions, again, "ids occur more than once, which would count them twice")


def _check_columns(predictions: Predictions, kind: Kind) -> None:
    rows = len(predictions.ids)
    if missing := [name for name in ("group", *kind.columns) if name not in predictions.columns]:
        raise InputError(f"columns lack {', '.join(missing)}: found {sorted(predictions.columns)}")
    for name, values in predictions.columns.items():
        if values.shape != (rows,) or values.dtype.kind not in COLUMNS:
            raise InputError(
                f"column {name!r} is {values.dtype} of shape {values.shape}, expected numbers, "
                f"bool or text of shape ({rows},)"
            )
    group = predictions.columns["group"]
    if group.dtype.kind == "f":
        refuse(predictions, ~np.isfinite(group), "column 'group' is not finite")


def refuse(predictions: Predictions, wrong: np.ndarray | np.bool, what: str) -> None:
    """Refuses rows, naming the first of them."""
    wrong = np.atleast_1d(wrong)
    rows = np.flatnonzero(wrong)
    if len(rows):
        names = ", ".join(map(str, predictions.ids[rows[:NAMED]]))
        more = ", …" if len(rows) > NAMED else ""
        raise InputError(f"{len(rows)} of {len(wrong)} rows: {what}: {names}{more}")
