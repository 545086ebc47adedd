"""What an encoder makes of the images of a dataset, for whatever is to be done with it."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sar_mixmae_jax import configuration, pretrained
from sar_mixmae_jax.data import FIELDS, Patches, open_patches
from sar_mixmae_jax.devices import replicate
from sar_mixmae_jax.files import write_arrays
from sar_mixmae_jax.heads import Classifier
from sar_mixmae_jax.predict import Prediction
from sar_mixmae_jax.preprocess import Preprocessing, preprocess
from sar_mixmae_jax.pretrained import Pretrained
from sar_mixmae_jax.processes import is_first
from sar_mixmae_jax.radiometry import TO_DB
from sar_mixmae_jax.step import Batch


def embed(
    encoder: Pretrained,
    patches: Patches,
    *,
    fit: str = "resize",
    dtype: str = "auto",
    batch_size: int = 256,
) -> dict[str, np.ndarray]:
    """Ids and features of all records, in their order.

    Args:
      encoder: in a checkpoint.
      patches: with the encoder's bands; see `open_for`.
      fit: an entry of `spatial.FITS`: how a record is brought to the encoder's input size.
      dtype: of the computation.
      batch_size: records at a time, of all devices.

    Returns:
      `ids` (records,); `features` (records, width) float32, the mean of the encoder's tokens;
      `labels` where the dataset has them; `about`, JSON: from what they were made.

    Raises:
      InputError: the checkpoint is damaged, or the records do not fit.
    """
    model = Classifier(encoder.size, 1, configuration.compute_dtype(dtype))
    settings = Preprocessing(
        encoder.size.image_size, encoder.mean, encoder.std, fit=fit, flips=False, unit=patches.unit
    )

    def features(params: Any, batch: Batch) -> dict[str, jax.Array]:
        images = preprocess(batch["backscatter"], jax.random.key(0), settings).images
        made = model.apply({"params": params}, images, method="features")
        assert isinstance(made, jax.Array)
        return {"features": made, **{name: batch[name] for name in batch if name != "backscatter"}}

    params = replicate({"encoder": pretrained.load(encoder, encoder.size)})
    made = Prediction(features, batch_size)(params, patches.source, f"encoding {patches.name}")
    about = {"encoder": encoder.description, "dataset": patches.describe(), "fit": fit}
    return {"ids": np.array(patches.ids()), **made, "about": np.array(json.dumps(about))}


def open_for(encoder: Pretrained, dataset: str, data_dir: str, split: str) -> Patches:
    """A split with the encoder's bands, and its labels where it has them.

    Raises:
      InputError: it cannot be opened, or lacks a band.
    """
    units = tuple(TO_DB)
    fields = open_patches(dataset, data_dir, split, encoder.bands, units=units).fields
    wanted = (*FIELDS, *(name for name in ("labels",) if name in fields))
    return open_patches(dataset, data_dir, split, encoder.bands, wanted, units)


def write(path: Path, embedded: dict[str, np.ndarray]) -> None:
    """Writes what `embed` made as an .npz; only the first process does.

    Raises:
      InputError: it cannot be written.
    """
    if is_first():
        write_arrays(path, embedded)
