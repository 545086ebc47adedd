"""What an encoder makes of the images of a dataset, for whatever is to be done with it."""

import json
from pathlib import Path

import numpy as np

from sar_mixmae_jax import configuration, pretrained
from sar_mixmae_jax.data import Patches, open_patches
from sar_mixmae_jax.devices import replicate
from sar_mixmae_jax.files import write_arrays
from sar_mixmae_jax.heads import Classifier
from sar_mixmae_jax.predict import Prediction
from sar_mixmae_jax.preprocess import Preprocessing
from sar_mixmae_jax.pretrained import Pretrained
from sar_mixmae_jax.processes import is_first
from sar_mixmae_jax.radiometry import TO_DB
from sar_mixmae_jax.settled import Settled
from sar_mixmae_jax.tuning import Tuning, features


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
    settings = Preprocessing(
        encoder.size.image_size, encoder.mean, encoder.std, fit=fit, flips=False, unit=patches.unit
    )
    model = Classifier(encoder.size, 1, configuration.compute_dtype(dtype))
    function = Settled(features, Tuning("classification", model, settings))
    params = replicate({"encoder": pretrained.load(encoder, encoder.size)})
    made = Prediction(function, batch_size)(params, patches.source, f"encoding {patches.name}")
    about = {"encoder": encoder.description, "dataset": patches.describe(), "fit": fit}
    return {"ids": np.array(patches.ids()), **made, "about": np.array(json.dumps(about))}


def open_for(encoder: Pretrained, dataset: str, data_dir: str, split: str) -> Patches:
    """A split with the encoder's bands, and its labels where it has them.

    Raises:
      InputError: it cannot be opened, or lacks a band.
    """
    return open_patches(
        dataset, data_dir, split, encoder.bands, units=tuple(TO_DB), also=("labels",)
    )


def write(path: Path, embedded: dict[str, np.ndarray]) -> None:
    """Writes what `embed` made as an .npz; only the first process does.

    Raises:
      InputError: it cannot be written.
    """
    if is_first():
        write_arrays(path, embedded)
