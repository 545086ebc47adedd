"""`python -m benchmarks --variant=base --batch_size=8`.

Measures, in one run: reading and batching, against a loop that does everything per sample on the
host; the step of pretraining, and its loop; the step of fine-tuning against evaluation; and the
step's arithmetic against the matrix products of this machine. Prints a table, and writes JSON with
--out.
"""

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict

from benchmarks import measure
from benchmarks.measure import (
    FLAGS,
    Results,
    describe_machine,
    measure_matrix_products,
    peak_memory,
)
from benchmarks.reading import measure_reading
from benchmarks.training import measure_training, measure_tuning
from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from sar_mixmae_jax.training.config import compute_dtype
from sar_mixmae_jax.utils.command_line import fail, parse_flags
from sar_mixmae_jax.utils.errors import UserError
from tfds_builders.bigearthnet_s1.fake_patches import write_patches
from tfds_builders.build import build

STEPS = flags.DEFINE_integer(
    "steps", 10, "timed steps, of each step and of the loop", 1, flag_values=FLAGS
)
PATCHES = flags.DEFINE_integer("patches", 128, "simulated patches to read", 1, flag_values=FLAGS)
PAIRS = flags.DEFINE_integer(
    "pairs", 16, "simulated pairs of two dates to read", 2, flag_values=FLAGS
)
OUT = flags.DEFINE_string("out", None, "JSON file to write", flag_values=FLAGS)


def main(argv: Sequence[str]) -> None:
    """Runs all measurements."""
    del argv
    logging.set_verbosity(logging.ERROR)  # TFDS warns of every config of one's own
    try:
        results = measure_all(measure.config_of_flags(), STEPS.value, PATCHES.value, PAIRS.value)
    except UserError as error:
        fail(error)
    print(table(results))
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(results, indent=2) + "\n")


def table(results: Results) -> str:
    """The results as a Markdown table."""
    r, machine = results, results["machine"]
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
        "pretraining loop": f"{r['loop_images_per_second']:.2f} images/s "
        f"({100 * r['loop_over_step']:.1f} % of the step)",
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
"""Datasets, as they are built here."""
SCENE = 2
"""Sides of an image of floods in tiles."""


def measure_all(
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
    dtype = compute_dtype(config.dtype)
    with tempfile.TemporaryDirectory() as folder:
        raw, data_dir = Path(folder, "raw"), Path(folder, "data")
        write_patches(raw, max(count, config.batch_size))
        build(DATASET_PATCHES, data_dir, raw)
        size = SCENE * config.model.image_size
        build(DATASET_PAIRS, data_dir, options={"pairs": pairs + pairs % 2, "size": size})
        patches = load_patch_dataset(DATASET_PATCHES, data_dir, "train", BANDS)
        return {
            "machine": describe_machine(),
            "variant": config.model.variant,
            "image_size": config.model.image_size,
            "flood_size": size,
            "batch_size": config.batch_size,
            "dtype": np.dtype(dtype).name,
            **measure_reading(config, patches, raw),
            **measure_training(config, patches, steps),
            **measure_tuning(config, "classification", DATASET_PATCHES, data_dir, steps),
            **measure_tuning(config, "flood", DATASET_PAIRS, data_dir, steps),
            **measure_matrix_products(dtype, side),
            "peak_memory_bytes": peak_memory(),
        }


if __name__ == "__main__":
    app.run(main, flags_parser=partial(parse_flags, flag_values=FLAGS))
