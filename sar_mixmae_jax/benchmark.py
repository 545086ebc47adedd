"""How fast is it here? `python -m sar_mixmae_jax.benchmark --variant=base --batch_size=8`.

Measures, in one run: reading and batching, against a loop that does everything per sample on the
host; the train step; the training loop; and the step's arithmetic against the matrix products of
this machine. Prints a table, and writes JSON with --out.
"""

import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from jax.typing import DTypeLike
from ml_collections import ConfigDict
from tqdm import tqdm

from configs import pretrain as recipe
from sar_mixmae_jax import configuration, flops
from sar_mixmae_jax.bands import BANDS
from sar_mixmae_jax.data import Patches, batches, open_patches
from sar_mixmae_jax.devices import feed, replicate
from sar_mixmae_jax.errors import UserError, fail, parse_flags
from sar_mixmae_jax.loop import run_steps
from sar_mixmae_jax.mixmae import random_params
from sar_mixmae_jax.objective import share_loss
from sar_mixmae_jax.optimizer import adamw
from sar_mixmae_jax.order import Order
from sar_mixmae_jax.step import compiled, init_state, map_over_devices
from sar_mixmae_jax.stopwatch import Stopwatch
from tfds_builders.bigearthnet_s1.imitation import write_patches
from tfds_builders.bigearthnet_s1.patch_folder import band_files, read_band
from tfds_builders.build import build
from tfds_builders.workers import cores

VARIANT = flags.DEFINE_string("variant", "tiny", "size of the model, of mixmae.VARIANTS")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "patches in a batch, of all devices")
DTYPE = flags.DEFINE_string("dtype", "auto", "float32, bfloat16, or auto")
STEPS = flags.DEFINE_integer("steps", 10, "timed steps, of the step and of the loop each")
PATCHES = flags.DEFINE_integer("patches", 128, "simulated patches to read")
OUT = flags.DEFINE_string("out", None, "JSON file to write")

Results = dict[str, Any]
PREFETCHED = 8  # batches, at least as many as the pipeline reads ahead
READ_BATCHES = 100  # batches a turn


def main(argv: Sequence[str]) -> None:
    """Runs all measurements."""
    del argv
    logging.set_verbosity(logging.WARNING)
    try:
        results = measure(config_of_flags(), STEPS.value, PATCHES.value)
    except UserError as error:
        fail(error)
    print(table(results))
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(results, indent=2) + "\n")


def config_of_flags() -> ConfigDict:
    """The published recipe with the variant, batch and dtype that the flags say."""
    config = recipe.get_config(f"variant={VARIANT.value}")
    config.batch_size, config.dtype = BATCH_SIZE.value, DTYPE.value
    return config


def measure(config: ConfigDict, steps: int, count: int, side: int = 4096) -> Results:
    """All measurements for a configuration; images are simulated patches on disk.

    Args:
      config: as made by `configs/pretrain.py`.
      steps: timed steps.
      count: patches on disk.
      side: of the matrix products.
    """
    dtype = configuration.compute_dtype(config.dtype)
    with tempfile.TemporaryDirectory() as folder:
        raw, data_dir = Path(folder, "raw"), Path(folder, "data")
        write_patches(raw, max(count, config.batch_size))
        build("bigearthnet_s1/v1_unsplit", data_dir, raw)
        patches = open_patches("bigearthnet_s1/v1_unsplit", data_dir, "train", BANDS)
        return {
            "machine": describe_machine(),
            "variant": config.model.variant,
            "image_size": config.model.image_size,
            "batch_size": config.batch_size,
            "dtype": np.dtype(dtype).name,
            **measure_reading(config, patches, raw),
            **measure_training(config, patches, steps),
            **measure_matrix_products(dtype, side),
            "peak_memory_bytes": peak_memory(),
        }


def describe_machine() -> Results:
    """What the numbers belong to."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "devices": jax.device_count(),
        "processor": processor_name(),
        "cores": cores(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def processor_name() -> str:
    """The CPU's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


# ---- reading


def measure_reading(config: ConfigDict, patches: Patches, raw: Path) -> Results:
    """Images per second of the pipeline, and of a loop over samples in NumPy, taking turns."""
    order = Order(len(patches.source), config.batch_size, seed=0)
    data = batches(patches.source, order)
    folders = sorted(raw.iterdir())
    read_naively = partial(
        read_per_sample, folders, config.model.image_size, patches, np.random.default_rng(0)
    )
    ours, naive = [], []
    for _ in range(5):
        naive.append(len(folders) / seconds(read_naively))
        take(data, PREFETCHED)  # what was read ahead during the other's turn
        ours.append(READ_BATCHES * config.batch_size / seconds(lambda: take(data, READ_BATCHES)))
    rates = float(np.median(ours)), float(np.median(naive))
    return {
        "reading_images_per_second": rates[0],
        "per_sample_images_per_second": rates[1],
        "reading_speedup": rates[0] / rates[1],
    }


def take(data: Iterator[Any], count: int) -> None:
    """Reads batches and drops them."""
    for _ in range(count):
        next(data)


def read_per_sample(
    folders: Sequence[Path], size: int, patches: Patches, rng: np.random.Generator
) -> np.ndarray:
    """What a conventional loader does on the host, patch by patch."""
    images = []
    for folder in folders:
        bands = [read_band(path)[0] for path in band_files(folder, BANDS)]
        db = resize(np.stack(bands, axis=-1), size)
        for axis in (0, 1):
            if rng.random() < 0.5:
                db = np.flip(db, axis)
        power = 10.0 ** (db / 10.0)
        low, high = np.nanmin(power, (0, 1)), np.nanmax(power, (0, 1))
        weights = np.exp(1.0 - (power - low) / (high - low + 1e-6))
        images.append(np.stack([(db - patches.mean) / patches.std, weights]).astype(np.float32))
    return np.stack(images)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resizing of a square (row, column, band) image in NumPy."""
    for axis in (0, 1):
        side = image.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
        low = np.floor(place).astype(int)
        share = (place - low).astype(image.dtype).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        high = np.minimum(low + 1, side - 1)
        image = image.take(low, axis) * (1 - share) + image.take(high, axis) * share
    return image


# ---- training


def measure_training(config: ConfigDict, patches: Patches, steps: int) -> Results:
    """Compile time, the step on a batch that is there, and the loop that reads its batches."""
    objective = configuration.objective(config, patches)
    optimizer = adamw(lambda _: 1e-4, b1=0.9, b2=0.95, weight_decay=0.05)
    state = replicate(
        init_state(partial(random_params, objective.model), optimizer, jax.random.key(0))
    )
    order = Order(len(patches.source), config.batch_size, seed=0)
    data = feed(batches(patches.source, order))
    batch = next(data)[1]
    mapped = map_over_devices(
        partial(share_loss, objective=objective), optimizer, config.accumulate
    )
    compiling = time.perf_counter()
    train_step = compiled(mapped, state, batch)
    compiling = time.perf_counter() - compiling

    def one_step(state: Any) -> Any:
        return train_step(state, batch)[0]

    state = jax.block_until_ready(one_step(state))
    # Step and loop take turns, so that both see the same moods of the machine.
    step_times, loop_times = [], []
    turn = max(1, min(5, steps // 2))
    for _ in tqdm(range(max(1, steps // turn)), desc="steps", unit="turn"):
        start = time.perf_counter()
        for _ in range(turn):
            state = one_step(state)
        jax.block_until_ready(state)
        step_times.append((time.perf_counter() - start) / turn)
        start = time.perf_counter()
        for done in run_steps(train_step, state, islice(data, turn), 0, Stopwatch()):
            state = done.state
        jax.block_until_ready(state)
        loop_times.append((time.perf_counter() - start) / turn)
    step, loop = float(np.median(step_times)), float(np.median(loop_times))
    count = flops.train_step(objective.model.size, config.batch_size)
    return {
        "compile_seconds": compiling,
        "step_seconds": step,
        "step_images_per_second": config.batch_size / step,
        "loop_images_per_second": config.batch_size / loop,
        "loop_over_step": step / loop,
        "step_flops": count,
        "flops_per_second": count / step,
    }


# ---- the machine


def measure_matrix_products(dtype: DTypeLike, side: int, repeats: int = 9) -> Results:
    """Median rate of square matrix products on one device, times the number of devices."""
    key = jax.random.key(0)
    matrix = jax.random.normal(key, (side, side), dtype)
    multiply = jax.jit(partial(jnp.matmul, precision="highest" if dtype == jnp.float32 else None))
    multiply(matrix, matrix).block_until_ready()
    times = [seconds(lambda: multiply(matrix, matrix).block_until_ready()) for _ in range(repeats)]
    return {
        "matrix_side": side,
        "matrix_flops_per_second": 2 * side**3 / float(np.median(times)) * jax.device_count(),
    }


def peak_memory() -> int:
    """Bytes: of the device where it tells, else the resident memory of this process."""
    stats = jax.devices()[0].memory_stats()
    if stats:
        return int(stats["peak_bytes_in_use"])
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else 1024 * kilobytes


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


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
        "train step": f"{r['step_images_per_second']:.2f} images/s ({r['step_seconds']:.3f} s)",
        "training loop": f"{r['loop_images_per_second']:.2f} images/s "
        f"({100 * r['loop_over_step']:.1f} % of the step)",
        "arithmetic of the step": f"{r['flops_per_second'] / 1e9:.1f} GFLOP/s",
        f"{r['matrix_side']}³ matrix products": f"{r['matrix_flops_per_second'] / 1e9:.1f} GFLOP/s",
        "step against products": f"{100 * share:.1f} %",
        "compiling the step": f"{r['compile_seconds']:.1f} s",
        "peak memory": f"{r['peak_memory_bytes'] / 2**30:.2f} GiB",
    }
    lines = (f"| {name} | {value} |" for name, value in rows.items())
    return "\n".join(["| | |", "|---|---|", *lines])


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
