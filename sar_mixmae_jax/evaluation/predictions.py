"""What predictions must be like before anything is computed from them."""

from __future__ import annotations

import dataclasses
import io
import json
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from sar_mixmae_jax.utils.errors import InputError, first_line, look_up
from sar_mixmae_jax.utils.files import atomic_write, report_write_errors

if TYPE_CHECKING:
    from sar_mixmae_jax.tasks.kinds import Kind


REQUIRED_COLUMNS = "biufU"
"""NumPy kinds that a column may have: bool, integers, floats, text."""

NAMED = 3
"""Ids that a message names."""


def check_predictions(predictions: Predictions, kinds: Mapping[str, Kind]) -> None:
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
    invalid_predictions(
        predictions, ~np.isfinite(logits).all(1), "logits are not finite (in float32)"
    )
    invalid_predictions(predictions, ~np.isfinite(labels).all(1), "labels are not finite")
    invalid_predictions(predictions, ~np.isin(labels, (0, 1)).all(1), "labels are neither 0 nor 1")
    unique, first = np.unique(predictions.ids, return_index=True)
    if len(unique) < rows:
        again = np.ones(rows, bool)
        again[first] = False
        invalid_predictions(
            predictions, again, "ids occur more than once, which would count them twice"
        )


def _check_columns(predictions: Predictions, kind: Kind) -> None:
    rows = len(predictions.ids)
    if missing := [name for name in ("group", *kind.columns) if name not in predictions.columns]:
        raise InputError(f"columns lack {', '.join(missing)}: found {sorted(predictions.columns)}")
    for name, values in predictions.columns.items():
        if values.shape != (rows,) or values.dtype.kind not in REQUIRED_COLUMNS:
            raise InputError(
                f"column {name!r} is {values.dtype} of shape {values.shape}, expected numbers, "
                f"bool or text of shape ({rows},)"
            )
    group = predictions.columns["group"]
    if group.dtype.kind == "f":
        invalid_predictions(predictions, ~np.isfinite(group), "column 'group' is not finite")


def invalid_predictions(predictions: Predictions, wrong: np.ndarray | np.bool, what: str) -> None:
    """Refuses rows, naming the first of them."""
    wrong = np.atleast_1d(wrong)
    rows = np.flatnonzero(wrong)
    if len(rows):
        names = ", ".join(map(str, predictions.ids[rows[:NAMED]]))
        more = ", …" if len(rows) > NAMED else ""
        raise InputError(f"{len(rows)} of {len(wrong)} rows: {what}: {names}{more}")


FORMAT = "sar_mixmae_jax predictions 1"
COLUMN_PREFIX = "column/"
"""Before the name of a column in the file."""

DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError),  # what is packed
    *(NotImplementedError, RuntimeError),  # packed in an unknown way, encrypted, nested too deeply
    *(tokenize.TokenError, SyntaxError, MemoryError, OverflowError),  # the head of an array
    *(ValueError, KeyError, IndexError, TypeError, AttributeError),  # what it holds
)
"""What zipfile, NumPy and json raise for files that are not as they should be."""


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """Logits and labels of n records (classification) or pairs of images (flood).

    Attributes:
      task: "classification" (several labels a record) or "flood" (two classes).
      classes: their names; flood: ("dry", "flood").
      ids: (n,) str, of record or pair, each once.
      logits: (n, classes) float32.
      labels: classification: (n, classes) uint8, 1 where a record has the label;
        flood: (n,) uint8, 1 = flood.
      columns: (n,) each, numeric, bool or str. Always "group": what is independent of what
        (scene, tile, group of sequences). Floods also: "before" and "after" (ids of the
        images), "sequence", and where known "onset" (bool: the image after is the first flooded
        one of its sequence), "gap_days" (float), "flooded_fraction" (float, NaN unknown),
        "hard_case" (str, "" none).
      about: plain JSON that reports show as it is. They are headed by "dataset" and "split", and
        below it, before any number, show "caveats" (list of str) and whatever has "overlap" in its
        name.

    Raises:
      InputError: a field is not as above; a logit or label is not finite; an id occurs twice.
    """

    task: str
    classes: tuple[str, ...]
    ids: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    columns: dict[str, np.ndarray]
    about: dict[str, Any]

    def __post_init__(self) -> None:
        for name in ("ids", "logits", "labels"):
            object.__setattr__(self, name, np.asarray(getattr(self, name)))
        object.__setattr__(self, "classes", tuple(self.classes))
        columns = {name: np.asarray(values) for name, values in self.columns.items()}
        object.__setattr__(self, "columns", columns)
        from sar_mixmae_jax.tasks.kinds import KINDS

        check_predictions(self, KINDS)
        object.__setattr__(self, "logits", self.logits.astype(np.float32))
        object.__setattr__(self, "labels", self.labels.astype(np.uint8))

    @property
    def probabilities(self) -> np.ndarray:
        """Float64. Any number of classes: sigmoid, (n, classes); one of two: softmax, (n,).

        In float64, since in float32 every logit above 17 has the probability 1, and average
        precision lives on the order of such logits.
        """
        logits = self.logits.astype(np.float64)
        exclusive = self.labels.ndim == 1
        return expit(logits[:, 1] - logits[:, 0] if exclusive else logits)

    @property
    def groups(self) -> np.ndarray:
        """(n,) number of the group of each row, from 0."""
        return np.unique(self.columns["group"], return_inverse=True)[1]


def save_predictions(predictions: Predictions, path: Path) -> None:
    """Writes predictions as an npz file without pickles; it appears whole or not at all.

    Raises:
      InputError: the file cannot be written.
    """
    head = {
        "format": FORMAT,
        "task": predictions.task,
        "classes": list(predictions.classes),
        "about": predictions.about,
    }
    arrays = {name: getattr(predictions, name) for name in ("ids", "logits", "labels")}
    arrays |= {COLUMN_PREFIX + name: values for name, values in predictions.columns.items()}
    content = io.BytesIO()
    np.savez_compressed(content, head=np.array(json.dumps(head, allow_nan=False)), **arrays)
    with report_write_errors(path):
        atomic_write(path, content.getvalue())


def load_predictions(path: Path) -> Predictions:
    """Reads what `save` wrote.

    Raises:
      InputError: the file is not there, damaged or of another kind; or what it holds is refused
        by `Predictions`.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
            head = json.loads(str(arrays.pop("head")))
            if not isinstance(head["classes"], list):
                raise TypeError(f"classes are {head['classes']!r}, expected a list")
            if head["format"] != FORMAT:
                raise InputError(f"{path} is {head['format']!r}, expected {FORMAT!r}")
            fields = {name: arrays.pop(name) for name in ("ids", "logits", "labels")}
            columns = {name.removeprefix(COLUMN_PREFIX): values for name, values in arrays.items()}
            fields |= {"task": head["task"], "classes": head["classes"], "about": head["about"]}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}): check the path") from error
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is damaged or holds no predictions ({first_line(error)}): "
            "write it again with the command that evaluates"
        ) from error
    try:
        return Predictions(**fields, columns=columns)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
