"""Everything that is measured, on simulated data that are built for it."""

import tempfile
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sar_mixmae_jax import configuration
from sar_mixmae_jax.bands import BANDS
from sar_mixmae_jax.benchmark.clock import Results
from sar_mixmae_jax.benchmark.machine import (
    describe_machine,
    measure_matrix_products,
    peak_memory,
)
from sar_mixmae_jax.benchmark.reading import measure_reading
from sar_mixmae_jax.benchmark.training import measure_training
from sar_mixmae_jax.benchmark.tuning import measure_tuning
from sar_mixmae_jax.data import open_patches
from tfds_builders.bigearthnet_s1.imitation import write_patches
from tfds_builders.build import build

PATCHES, PAIRS = "bigearthnet_s1/v1_unsplit", "flood_pairs/benchmark"
"""Datasets, as they are built here."""
SCENE = 2
"""Sides of an image of floods in tiles."""


def measure(
    config: ConfigDict, steps: int, count: int, pairs: int = 16, side: int = 4096
) -> Results:
    """All measurements for a configuration; images are simulated and on disk.

    Args:
      config: as made by `configs/pretrain.py`.
      steps: timed, of each.
      count: patches on disk.
      pairs: of two dates on disk.
      side: of the matrix products.
    """
    dtype = configuration.compute_dtype(config.dtype)
    with tempfile.TemporaryDirectory() as folder:
        raw, data_dir = Path(folder, "raw"), Path(folder, "data")
        write_patches(raw, max(count, config.batch_size))
        build(PATCHES, data_dir, raw)
        size = SCENE * config.model.image_size
        build(PAIRS, data_dir, options={"pairs": pairs + pairs % 2, "size": size})
        patches = open_patches(PATCHES, data_dir, "train", BANDS)
        return {
            "machine": describe_machine(),
            "variant": config.model.variant,
            "image_size": config.model.image_size,
            "flood_size": size,
            "batch_size": config.batch_size,
            "dtype": np.dtype(dtype).name,
            **measure_reading(config, patches, raw),
            **measure_training(config, patches, steps),
            **measure_tuning(config, "classification", PATCHES, data_dir, steps),
            **measure_tuning(config, "flood", PAIRS, data_dir, steps),
            **measure_matrix_products(dtype, side),
            "peak_memory_bytes": peak_memory(),
        }
