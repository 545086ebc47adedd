"""Predictions of a model on a split: checked, saved and loaded.

What depends on the task is checked by `Task.check_predictions`.
"""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import atomic_write, report_write_errors

COLUMN_KINDS = "biufU"
"""NumPy kinds of the columns: bool, integers, floats, text."""

MAX_NAMED = 3
"""Number of ids that a message lists."""

FORMAT = "sar_mixmae_jax predictions 1"
COLUMN_PREFIX, ARRAY_PREFIX = "column/", "array/"
"""Prefixes of columns and of further arrays in the npz."""


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """Logits and labels of n records.

    Attributes:
      task: name of the task.
      classes: names of the classes, in the order of the logits.
      ids: (n,) str, unique.
      logits: (n, classes) float32.
      labels: (n,) uint8 number of the class where a record has exactly one ("exclusive"), else
        (n, classes) uint8, 1 where a record has the class.
      columns: (n,) each, numeric, bool or str, by name. Always "group", which names what is
        statistically independent (scene, tile, group of sequences); others depend on the task.
      provenance: JSON values by name, shown in reports: dataset, split, checkpoint and so on.
        "dataset", "split" and "checkpoint" are the title; "caveats" (list of str) and entries with
        "overlap" in their name are shown before any number. Stored under the key "about".
      arrays: (n, …) each, numbers, by name: further results of the records, such as counts of
        pixels.

    Raises:
      InputError: a field is not as above; a logit or label is not finite; an id occurs twice.
    """

    task: str
    classes: tuple[str, ...]
    ids: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    columns: dict[str, np.ndarray]
    provenance: dict[str, Any]
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("ids", "logits", "labels"):
            object.__setattr__(self, name, np.asarray(getattr(self, name)))
        object.__setattr__(self, "classes", tuple(self.classes))
        columns = {name: np.asarray(values) for name, values in self.columns.items()}
        object.__setattr__(self, "columns", columns)
        arrays = {name: np.asarray(values) for name, values in self.arrays.items()}
        object.__setattr__(self, "arrays", arrays)
        if not isinstance(self.task, str):
            raise InputError(f"task is {self.task!r}, expected a name")
        _check_shapes(self)
        _check_values(self)
        _check_columns(self)
        _check_arrays(self)
        _check_provenance(self.provenance)
        object.__setattr__(self, "logits", self.logits.astype(np.float32))
        object.__setattr__(self, "labels", self.labels.astype(np.uint8))

    @property
    def probabilities(self) -> np.ndarray:
        """Probabilities, float64: (n, classes) by sigmoid, or by softmax where exclusive.

        Of two exclusive classes (n,) of the second. In float32 each logit above 17 would have the
        probability 1, and average precision depends on the order of such logits.
        """
        logits = self.logits.astype(np.float64)
        if self.labels.ndim > 1:
            return expit(logits)
        if logits.shape[1] == 2:
            return expit(logits[:, 1] - logits[:, 0])
        return softmax(logits, axis=1)

    @property
    def groups(self) -> np.ndarray:
        """(n,) int, number of the group of each row, from 0."""
        return np.unique(self.columns["group"], return_inverse=True)[1]

    @property
    def number_of_groups(self) -> int:
        """Number of groups."""
        return int(self.groups.max()) + 1


def _check_shapes(predictions: Predictions) -> None:
    ids, classes = predictions.ids, predictions.classes
    if not all(isinstance(name, str) for name in classes):
        raise InputError(f"classes are {classes}: expected names")
    if not classes or len(set(classes)) < len(classes):
        raise InputError(f"classes are {classes}: expected at least one, each name once")
    if ids.ndim != 1 or ids.dtype.kind != "U" or not len(ids):
        raise InputError(
            f"ids are {ids.dtype} of shape {ids.shape}: expected text, (n,) with at least one row"
        )
    full = (len(ids), len(classes))
    shapes = {"logits": (full,), "labels": (full, full[:1])}
    for name, expected in shapes.items():
        array = getattr(predictions, name)
        if array.shape not in expected or array.dtype.kind not in "biuf":
            raise InputError(
                f"{name} are {array.dtype} of shape {array.shape}, expected numbers "
                f"{' or '.join(map(str, expected))}: {len(ids)} ids, {len(classes)} classes"
            )


def _check_values(predictions: Predictions) -> None:
    rows = len(predictions.ids)
    labels = predictions.labels.reshape(rows, -1)
    with np.errstate(over="ignore"):
        logits = predictions.logits.astype(np.float32)
    refuse_rows(predictions, ~np.isfinite(logits).all(1), "logits are not finite (in float32)")
    refuse_rows(predictions, ~np.isfinite(labels).all(1), "labels are not finite")
    values = 2 if predictions.labels.ndim > 1 else max(2, len(predictions.classes))
    expected = "neither 0 nor 1" if values == 2 else f"not whole numbers from 0 to {values - 1}"
    unknown = ~np.isin(labels, np.arange(values)).all(1)
    refuse_rows(predictions, unknown, f"labels are {expected}")
    _, first = np.unique(predictions.ids, return_index=True)
    if len(first) < rows:
        repeated = np.ones(rows, bool)
        repeated[first] = False
        refuse_rows(predictions, repeated, "ids occur more than once, which would count them twice")


def _check_arrays(predictions: Predictions) -> None:
    for name, values in predictions.arrays.items():
        if values.shape[:1] != predictions.ids.shape or values.dtype.kind not in "iuf":
            raise InputError(
                f"array {name!r} is {values.dtype} of shape {values.shape}, expected numbers of "
                f"shape ({len(predictions.ids)}, …)"
            )
        finite = np.isfinite(values.reshape(len(values), -1)).all(1)
        refuse_rows(predictions, ~finite, f"array {name!r} is not finite")


def _check_columns(predictions: Predictions) -> None:
    rows = len(predictions.ids)
    if "group" not in predictions.columns:
        raise InputError(
            f"found the columns {sorted(predictions.columns)}, expected one named group: add it"
        )
    for name, values in predictions.columns.items():
        if values.shape != (rows,) or values.dtype.kind not in COLUMN_KINDS:
            raise InputError(
                f"column {name!r} is {values.dtype} of shape {values.shape}, expected numbers, "
                f"bool or text of shape ({rows},)"
            )
    group = predictions.columns["group"]
    if group.dtype.kind == "f":
        refuse_rows(predictions, ~np.isfinite(group), "column 'group' is not finite")


def _check_provenance(provenance: Any) -> None:
    if not isinstance(provenance, dict):
        raise InputError(f"about is {type(provenance).__name__}, expected values by name")
    try:
        json.dumps(provenance, allow_nan=False, indent=1)  # as reports write it
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"about is not plain JSON ({error}): give text, numbers, lists") from error


def refuse_rows(predictions: Predictions, wrong: np.ndarray | np.bool, reason: str) -> None:
    """Raise if any row is wrong; the message lists the first ids.

    Args:
      predictions: whose rows are checked.
      wrong: (n,) bool.
      reason: what is wrong with the rows.

    Raises:
      InputError: a row is wrong.
    """
    wrong = np.atleast_1d(wrong)
    rows = np.flatnonzero(wrong)
    if len(rows):
        names = ", ".join(map(str, predictions.ids[rows[:MAX_NAMED]]))
        more = ", …" if len(rows) > MAX_NAMED else ""
        raise InputError(f"{len(rows)} of {len(wrong)} rows: {reason}: {names}{more}")


def save_predictions(predictions: Predictions, path: Path) -> None:
    """Write predictions as an npz file without pickles, atomically.

    Raises:
      InputError: the file cannot be written.
    """
    head = {
        "format": FORMAT,
        "task": predictions.task,
        "classes": list(predictions.classes),
        "about": predictions.provenance,
    }
    arrays = {name: getattr(predictions, name) for name in ("ids", "logits", "labels")}
    arrays |= {COLUMN_PREFIX + name: values for name, values in predictions.columns.items()}
    arrays |= {ARRAY_PREFIX + name: values for name, values in predictions.arrays.items()}
    content = io.BytesIO()
    np.savez_compressed(content, head=np.array(json.dumps(head, allow_nan=False)), **arrays)
    with report_write_errors(path):
        atomic_write(path, content.getvalue())


def load_predictions(path: Path) -> Predictions:
    """Read a file of `save_predictions`.

    Raises:
      InputError: the file does not exist, is damaged or of another format; or its content is
        refused by `Predictions`.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        head = json.loads(str(arrays.pop("head")))
        if not isinstance(head["classes"], list):
            raise TypeError(f"classes are {head['classes']!r}, expected a list")
        stored_format = head["format"]
        fields = {name: arrays.pop(name) for name in ("ids", "logits", "labels")}
        further = {
            name.removeprefix(ARRAY_PREFIX): arrays.pop(name)
            for name in list(arrays)
            if name.startswith(ARRAY_PREFIX)
        }
        columns = {name.removeprefix(COLUMN_PREFIX): values for name, values in arrays.items()}
        fields |= {"task": head["task"], "classes": head["classes"], "provenance": head["about"]}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}): check the path") from error
    except Exception as error:  # zipfile, zlib, numpy and json raise a dozen types for damage
        raise InputError(
            f"{path} is damaged or holds no predictions ({first_line(error)}): "
            "remove it, and write it again with the command that wrote it"
        ) from error
    if stored_format != FORMAT:
        raise InputError(f"{path} is {stored_format!r}, expected {FORMAT!r}")
    try:
        return Predictions(**fields, columns=columns, arrays=further)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
