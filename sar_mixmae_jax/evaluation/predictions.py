"""What a model said about every record or pair of a split, beside what is true."""

import dataclasses
import io
import json
import lzma
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from sar_mixmae_jax.errors import InputError, first_line
from sar_mixmae_jax.evaluation.checks import check
from sar_mixmae_jax.evaluation.kinds import KINDS
from sar_mixmae_jax.files import write_whole, writing

FORMAT = "sar_mixmae_jax predictions 1"
COLUMN = "column/"
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
        check(self, KINDS)
        object.__setattr__(self, "logits", self.logits.astype(np.float32))
        object.__setattr__(self, "labels", self.labels.astype(np.uint8))

    @property
    def probabilities(self) -> np.ndarray:
        """Float64. Any number of classes: sigmoid, (n, classes); one of two: softmax, (n,).

        In float64, since in float32 every logit above 17 has the probability 1, and average
        precision lives on the order of such logits.
        """
        logits = self.logits.astype(np.float64)
        exclusive = KINDS[self.task].exclusive
        return expit(logits[:, 1] - logits[:, 0] if exclusive else logits)

    @property
    def groups(self) -> np.ndarray:
        """(n,) number of the group of each row, from 0."""
        return np.unique(self.columns["group"], return_inverse=True)[1]


def save(predictions: Predictions, path: Path) -> None:
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
    arrays |= {COLUMN + name: values for name, values in predictions.columns.items()}
    content = io.BytesIO()
    np.savez_compressed(content, head=np.array(json.dumps(head, allow_nan=False)), **arrays)
    with writing(path):
        write_whole(path, content.getvalue())


def load(path: Path) -> Predictions:
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
            columns = {name.removeprefix(COLUMN): values for name, values in arrays.items()}
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
