"""Measure reading, training and evaluation on this machine.

  python -m benchmarks.speed --variant=base --batch_size=8

Measures in one run: reading and batching, against a loop over samples on the host; the pretraining
step and its loop; the fine-tuning step against evaluation; and the arithmetic of the step against
the matrix products of this machine. Prints a table, and writes JSON with --out.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from benchmarks.measure import (
    Results,
    config_from_flags,
    define_model_flags,
    describe_machine,
    measure_matrix_products,
    peak_memory,
    seconds,
)
from benchmarks.training import measure_finetuning, measure_training
from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.data.patch_dataset import PatchDataset, batches, load_patch_dataset
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.training import pretrain
from sar_mixmae_jax.training.config import compute_dtype
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.decibel import db_to_linear
from tfds_builders.bigearthnet_s1.fake_patches import write_patches
from tfds_builders.bigearthnet_s1.patch_files import band_files, read_band
from tfds_builders.build import build

FLAGS = flags.FlagValues()
define_model_flags(FLAGS)
STEPS = flags.DEFINE_integer(
    "steps", 10, "timed steps, of each step and of the loop", 1, flag_values=FLAGS
)
PATCHES = flags.DEFINE_integer("patches", 128, "simulated patches to read", 1, flag_values=FLAGS)
PAIRS = flags.DEFINE_integer(
    "pairs", 16, "simulated pairs of two dates to read", 2, flag_values=FLAGS
)
OUT = flags.DEFINE_string("out", None, "JSON file to write", flag_values=FLAGS)


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Measure as the command line says, and print the table."""
    parse_flags(argv, FLAGS, __doc__)
    logging.set_verbosity(logging.ERROR)  # TFDS warns of every config that is not its own
    results = measure_all(config_from_flags(FLAGS), STEPS.value, PATCHES.value, PAIRS.value)
    print(table(results))
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(results, indent=2) + "\n")


def table(results: Results) -> str:
    """Return the results as a Markdown table."""
    r, machine, loop = results, results["machine"], results["loops"]["none"]
    share = r["flops_per_second"] / r["matrix_flops_per_second"]
    rows = {
        "machine": f"{machine['processor']}, {machine['cores']} cores; "
        f"{machine['devices']} x {machine['device']}",
        "model": f"{r['variant']}, {r['image_size']} px, batch {r['batch_size']}, {r['dtype']}",
        "reading and batching": f"{r['reading_images_per_second']:.0f} images/s",
        "… against a per-sample loop": f"{r['reading_speedup']:.1f} x "
        f"({r['per_sample_images_per_second']:.0f} images/s)",
        "pretraining step": f"{r['step_images_per_second']:.2f} images/s "
        f"({r['step_seconds']:.3f} s)",
        "pretraining loop": f"{loop['images_per_second']:.2f} images/s "
        f"({100 * loop['over_step']:.1f} % of the step)",
        "fine-tuning step, labels": f"{r['classification_step_per_second']:.2f} images/s",
        "… evaluation, read from disk": f"{r['classification_evaluation_per_second']:.2f} images/s "
        f"({r['classification_evaluation_over_step']:.1f} x the step)",
        f"fine-tuning step, floods, 2 x {r['flood_size']} px": f"{r['flood_step_per_second']:.2f} "
        "pairs/s",
        "… evaluation of floods": f"{r['flood_evaluation_per_second']:.2f} pairs/s "
        f"({r['flood_evaluation_over_step']:.1f} x the step)",
        "arithmetic of the pretraining step": f"{r['flops_per_second'] / 1e9:.1f} GFLOP/s",
        f"{r['matrix_side']}³ matrix products": f"{r['matrix_flops_per_second'] / 1e9:.1f} GFLOP/s",
        "step against products": f"{100 * share:.1f} %",
        "compiling the step": f"{r['compile_seconds']:.1f} s",
        "peak memory": f"{r['peak_memory_bytes'] / 2**30:.2f} GiB",
    }
    lines = (f"| {name} | {value} |" for name, value in rows.items())
    return "\n".join(["| | |", "|---|---|", *lines])


DATASET_PATCHES, DATASET_PAIRS = "bigearthnet_s1/v1_unsplit", "flood_pairs/benchmark"
"""Names of the simulated datasets."""
FLOOD_TILES = 2
"""Side of a flood image in tiles."""


def measure_all(
    config: ConfigDict, steps: int, count: int, pairs: int = 16, side: int = 4096
) -> Results:
    """Return all measurements for a configuration, on simulated images on disk.

    Args:
      config: as returned by `configs/pretrain.py`.
      steps: number of timed steps, of each kind.
      count: number of patches on disk.
      pairs: number of pairs of dates on disk.
      side: rows and columns of the matrix products.
    """
    dtype = compute_dtype(config.dtype)
    config = config.copy_and_resolve_references()
    with tempfile.TemporaryDirectory() as folder:
        raw, data_dir = Path(folder, "raw"), Path(folder, "data")
        write_patches(raw, max(count, config.batch_size))
        build(DATASET_PATCHES, data_dir, raw)
        size = FLOOD_TILES * config.model.image_size
        build(DATASET_PAIRS, data_dir, options={"pairs": pairs + pairs % 2, "size": size})
        config.update(dataset=DATASET_PATCHES, data_dir=str(data_dir), split="train")
        patches = load_patch_dataset(DATASET_PATCHES, data_dir, "train", BANDS)
        return {
            "machine": describe_machine(),
            "variant": config.model.variant,
            "image_size": config.model.image_size,
            "flood_size": size,
            "batch_size": config.batch_size,
            "dtype": np.dtype(dtype).name,
            **measure_reading(config, patches, raw),
            **measure_training(pretrain.set_up(config, Path(folder, "run")), steps),
            **measure_finetuning(config, "classification", DATASET_PATCHES, data_dir, steps),
            **measure_finetuning(config, "flood", DATASET_PAIRS, data_dir, steps),
            **measure_matrix_products(dtype, side),
            "peak_memory_bytes": peak_memory(),
        }


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


if __name__ == "__main__":
    main(sys.argv)
