"""Features of a frozen encoder, computed once and stored in a file of the run."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from sar_mixmae_jax.tasks.supervised import FinetuneObjective, encode_features
from sar_mixmae_jax.tasks.task_dataset import TaskDataset
from sar_mixmae_jax.training.batch_predictor import BatchPredictor
from sar_mixmae_jax.training.train_step import CacheablePartial
from sar_mixmae_jax.utils.errors import first_line
from sar_mixmae_jax.utils.files import write_arrays


class FeatureCache(NamedTuple):
    """Features of a split.

    Attributes:
      ids: (records,) of the records.
      features: (records, width) float32.
      labels: (records, …) as the task has them.
    """

    ids: np.ndarray
    features: np.ndarray
    labels: np.ndarray


def load_or_compute_features(
    path: Path,
    encoder: str,
    objective: FinetuneObjective,
    params: Any,
    split: TaskDataset,
    batch_size: int,
) -> FeatureCache:
    """Read the features that an earlier start stored, or compute and store them.

    Args:
      path: path of the file.
      encoder: text that identifies the encoder.
      objective: model and task.
      params: on all devices.
      split: split of a dataset.
      batch_size: records at a time, of all devices.
    """
    facts = [
        encoder,
        repr(objective),
        split.patches.checksum,
        split.patches.name,
        split.ids.tolist(),
    ]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    features = _read_features(path, key)
    if features is None:
        predict = BatchPredictor(CacheablePartial(encode_features, objective), batch_size)
        outputs = predict(params, split.patches.source, f"features of {split.patches.name}")
        features = FeatureCache(split.ids, outputs["features"], outputs["labels"])
        write_arrays(path, {"key": np.array(key), **features._asdict()})
    return features


def _read_features(path: Path, key: str) -> FeatureCache | None:
    """Return the content of a file; None if its key differs or it cannot be read."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return None
            return FeatureCache(*(file[name] for name in FeatureCache._fields))
    except Exception as error:  # NumPy raises what zipfile and zlib raise
        logging.warning("%s cannot be read and is computed again: %s", path, first_line(error))
        return None
