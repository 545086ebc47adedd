"""Features of all records of a dataset, written to one file."""

import json
from pathlib import Path

import numpy as np

from sar_mixmae_jax.data.patch_dataset import PatchDataset, load_patch_dataset
from sar_mixmae_jax.inference.encoder import BATCH_SIZE, freeze_encoder
from sar_mixmae_jax.inference.geoparquet import common_crs, footprints, write_geoparquet
from sar_mixmae_jax.objectives.radiometry import TO_DB
from sar_mixmae_jax.training.distributed import is_primary_process
from sar_mixmae_jax.training.source_checkpoint import SourceCheckpoint
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import write_arrays
from sar_mixmae_jax.utils.typed_json import to_json

PARQUET = ".parquet"


def load_embedding_dataset(
    source_checkpoint: SourceCheckpoint, dataset: str, data_dir: str, split: str
) -> PatchDataset:
    """Open a split with the bands of an encoder, and its labels where it has them.

    Raises:
      InputError: it cannot be opened, or lacks a band.
    """
    return load_patch_dataset(
        dataset, data_dir, split, source_checkpoint.bands, units=tuple(TO_DB), also=("labels",)
    )


def embed(
    source_checkpoint: SourceCheckpoint,
    patches: PatchDataset,
    *,
    resize_mode: str | None = None,
    dtype: str = "auto",
    batch_size: int = BATCH_SIZE,
) -> dict[str, np.ndarray]:
    """Return ids and features of all records, in their order.

    Args:
      source_checkpoint: source checkpoint of the encoder.
      patches: records with the bands of the encoder; see `load_embedding_dataset`.
      resize_mode: "resize" or "pad", to the input size of the encoder; None for that of its run.
      dtype: dtype of the computation, see `load_encoder`.
      batch_size: records at a time, of all devices.

    Returns:
      `ids` (records,) str; `features` (records, width) float32, the mean of the tokens of a
      record; `labels` where the dataset has them; `about`, JSON: encoder, dataset and resizing.

    Raises:
      InputError: the checkpoint is damaged, or the records do not fit.
    """
    frozen = freeze_encoder(source_checkpoint, resize_mode=resize_mode, dtype=dtype)
    arrays = frozen.encode(
        patches.source,
        "features",
        batch_size=batch_size,
        unit=patches.unit,
        description=f"encoding {patches.name}",
    )
    provenance = {
        "encoder": to_json(source_checkpoint.description),
        "dataset": to_json(patches.describe()),
        "resize_mode": frozen.resize_mode,
    }
    return {"ids": np.array(patches.ids()), **arrays, "about": np.array(json.dumps(provenance))}


PLACE_FIELDS = ("time", "crs", "transform")
"""Fields of the records of a georeferenced dataset."""


def check_table(path: Path, patches: PatchDataset) -> None:
    """Check that the features of a dataset can be written to a file of this suffix.

    Raises:
      InputError: it is a GeoParquet file, and the records have no place.
    """
    missing = [name for name in PLACE_FIELDS if name not in patches.fields]
    if path.suffix == PARQUET and missing:
        raise InputError(
            f"{patches.name} has no {' and no '.join(missing)}, which GeoParquet needs: name an "
            ".npz file"
        )


def write_features(path: Path, arrays: dict[str, np.ndarray], patches: PatchDataset) -> None:
    """Write what `embed` returned, in the primary process only.

    Args:
      path: .npz, or .parquet for GeoParquet with a row a record: `id`, `time`, `crs`, `features`,
        `labels`, and the footprint, as longitudes and latitudes where records differ in their CRS.
      arrays: of `embed`.
      patches: the records.

    Raises:
      InputError: it cannot be written.
    """
    if not is_primary_process():
        return
    if path.suffix != PARQUET:
        write_arrays(path, arrays)
        return
    assert patches.read is not None
    source = patches.read(PLACE_FIELDS)
    records = [source[row] for row in range(len(source))]
    times, systems = ([record[name].decode() for record in records] for name in PLACE_FIELDS[:2])
    sides = np.full(len(records), patches.size)
    corners = footprints(np.stack([record["transform"] for record in records]), sides, sides)
    corners, crs = common_crs(corners, systems)
    columns = {"id": arrays["ids"], "time": np.array(times), "crs": np.array(systems)}
    columns |= {name: arrays[name] for name in ("features", "labels") if name in arrays}
    write_geoparquet(path, corners, crs, columns, {"about": str(arrays["about"])})
