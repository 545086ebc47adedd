"""Features of a frozen encoder: computed once, kept in a file beside the run that needs them."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from sar_mixmae_jax.errors import first_line
from sar_mixmae_jax.files import write_arrays
from sar_mixmae_jax.labelled import Labelled
from sar_mixmae_jax.predict import Prediction
from sar_mixmae_jax.settled import Settled
from sar_mixmae_jax.tuning import Tuning, features


class Features(NamedTuple):
    """What an encoder makes of a split.

    Attributes:
      ids: (records,) of the records.
      features: (records, width) float32.
      labels: (records, …) as the task has them.
    """

    ids: np.ndarray
    features: np.ndarray
    labels: np.ndarray


def compute(
    tuning: Tuning, params: Any, split: Labelled, batch_size: int, description: str | None
) -> Features:
    """Encodes a split, in its order; every process gets all of it.

    Args:
      tuning: model and task.
      params: on all devices.
      split: of a dataset.
      batch_size: records at a time, of all devices.
      description: beside the progress bar; None shows none.
    """
    predict = Prediction(Settled(features, tuning), batch_size)
    made = predict(params, split.patches.source, description)
    return Features(split.ids, made["features"], made["labels"])


def cached(
    path: Path,
    encoder: str,
    tuning: Tuning,
    params: Any,
    split: Labelled,
    batch_size: int,
) -> Features:
    """As `compute`, or of the file where an earlier start put them.

    Args:
      path: of the file.
      encoder: tells this encoder from others.
      tuning: model and task.
      params: on all devices.
      split: of a dataset.
      batch_size: records at a time, of all devices.
    """
    facts = [encoder, repr(tuning), split.patches.checksum, split.patches.name, split.ids.tolist()]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    found = _read(path, key)
    if found is None:
        found = compute(tuning, params, split, batch_size, f"features of {split.patches.name}")
        write_arrays(path, {"key": np.array(key), **found._asdict()})
    return found


def _read(path: Path, key: str) -> Features | None:
    """What is in a file; None if it is of something else or cannot be read."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return None
            return Features(*(file[name] for name in Features._fields))
    except Exception as error:  # NumPy raises what zipfile and zlib raise
        logging.warning("%s cannot be read and is made again: %s", path, first_line(error))
        return None
