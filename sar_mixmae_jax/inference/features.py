"""What an encoder makes of the images of a dataset, for whatever is to be done with it."""

import json
from pathlib import Path

import numpy as np

from sar_mixmae_jax.data.patch_dataset import PatchDataset, load_patch_dataset
from sar_mixmae_jax.models.heads import Classifier
from sar_mixmae_jax.objectives.preprocess import Preprocessing
from sar_mixmae_jax.objectives.radiometry import TO_DB
from sar_mixmae_jax.tasks.supervised import FinetuneObjective, encode_features
from sar_mixmae_jax.training import initialisation
from sar_mixmae_jax.training.batch_predictor import BatchPredictor
from sar_mixmae_jax.training.config import compute_dtype
from sar_mixmae_jax.training.distributed import is_primary_process
from sar_mixmae_jax.training.initialisation import SourceCheckpoint
from sar_mixmae_jax.training.sharding import replicate
from sar_mixmae_jax.utils.files import write_arrays
from sar_mixmae_jax.utils.jit import CacheablePartial


def embed(
    encoder: SourceCheckpoint,
    patches: PatchDataset,
    *,
    resize_mode: str = "resize",
    dtype: str = "auto",
    batch_size: int = 256,
) -> dict[str, np.ndarray]:
    """Ids and features of all records, in their order.

    Args:
      encoder: in a checkpoint.
      patches: with the encoder's bands; see `open_for`.
      resize_mode: an entry of `spatial.FITS`: how a record is brought to the encoder's input size.
      dtype: of the computation.
      batch_size: records at a time, of all devices.

    Returns:
      `ids` (records,); `features` (records, width) float32, the mean of the encoder's tokens;
      `labels` where the dataset has them; `about`, JSON: from what they were made.

    Raises:
      InputError: the checkpoint is damaged, or the records do not fit.
    """
    settings = Preprocessing(
        encoder.arch.image_size,
        encoder.mean,
        encoder.std,
        resize_mode=resize_mode,
        random_flip=False,
        unit=patches.unit,
    )
    model = Classifier(encoder.arch, 1, compute_dtype(dtype))
    function = CacheablePartial(
        encode_features, FinetuneObjective("classification", model, settings)
    )
    params = replicate({"encoder": initialisation.load_encoder_params(encoder, encoder.arch)})
    made = BatchPredictor(function, batch_size)(params, patches.source, f"encoding {patches.name}")
    about = {
        "encoder": encoder.description,
        "dataset": patches.describe(),
        "resize_mode": resize_mode,
    }
    return {"ids": np.array(patches.ids()), **made, "about": np.array(json.dumps(about))}


def load_embedding_dataset(
    encoder: SourceCheckpoint, dataset: str, data_dir: str, split: str
) -> PatchDataset:
    """A split with the encoder's bands, and its labels where it has them.

    Raises:
      InputError: it cannot be opened, or lacks a band.
    """
    return load_patch_dataset(
        dataset, data_dir, split, encoder.bands, units=tuple(TO_DB), also=("labels",)
    )


def write_features(path: Path, embedded: dict[str, np.ndarray]) -> None:
    """Writes what `embed` made as an .npz; only the first process does.

    Raises:
      InputError: it cannot be written.
    """
    if is_primary_process():
        write_arrays(path, embedded)
