"""Rate of reading and batching, against a conventional loader that works per sample."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from benchmarks.measure import Results, seconds
from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.data.patch_dataset import PatchDataset, batches
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.utils.decibel import db_to_linear
from tfds_builders.bigearthnet_s1.patch_files import band_files, read_band

PREFETCHED = 8
"""Batches, at least as many as the pipeline prefetches."""
READ_BATCHES = 100
"""Batches in a turn."""


def measure_reading(config: ConfigDict, patches: PatchDataset, raw: Path) -> Results:
    """Measure images per second of the pipeline, and of a loop over samples in NumPy, in turns.

    Args:
      config: as returned by `configs/pretrain.py`.
      patches: built dataset.
      raw: folder of the same patches as GeoTIFFs.
    """
    sampler = ShuffleSampler(len(patches.source), config.batch_size, seed=0)
    data = batches(patches.source, sampler)
    folders = sorted(raw.iterdir())
    read_naively = partial(
        read_per_sample, folders, config.model.image_size, patches, np.random.default_rng(0)
    )
    ours, naive = [], []
    for _ in range(5):
        naive.append(len(folders) / seconds(read_naively))
        take(data, PREFETCHED)  # read ahead during the other turn
        ours.append(READ_BATCHES * config.batch_size / seconds(lambda: take(data, READ_BATCHES)))
    rates = float(np.median(ours)), float(np.median(naive))
    return {
        "reading_images_per_second": rates[0],
        "per_sample_images_per_second": rates[1],
        "reading_speedup": rates[0] / rates[1],
    }


def take(data: Iterator[Any], count: int) -> None:
    """Read batches and drop them."""
    for _ in range(count):
        next(data)


def read_per_sample(
    folders: Sequence[Path], size: int, patches: PatchDataset, rng: np.random.Generator
) -> np.ndarray:
    """Read, resize, flip, weight and standardise patch by patch, as a conventional loader does."""
    images = []
    for folder in folders:
        bands = [read_band(path)[0] for path in band_files(folder, BANDS)]
        db = resize(np.stack(bands, axis=-1), size)
        for axis in (0, 1):
            if rng.random() < 0.5:
                db = np.flip(db, axis)
        power = db_to_linear(db)
        low, high = np.nanmin(power, (0, 1)), np.nanmax(power, (0, 1))
        weights = np.exp(1.0 - (power - low) / (high - low + 1e-6))
        images.append(
            np.stack([(db - patches.statistics.mean) / patches.statistics.std, weights]).astype(
                np.float32
            )
        )
    return np.stack(images)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize a square (row, column, band) image bilinearly, in NumPy."""
    for axis in (0, 1):
        side = image.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
        low = np.floor(place).astype(int)
        share = (place - low).astype(image.dtype).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        high = np.minimum(low + 1, side - 1)
        image = image.take(low, axis) * (1 - share) + image.take(high, axis) * share
    return image
