"""Measure how fast datasets are built and read on this machine.

  python -m benchmarks.building --patches=4000

Builds simulated patches, and the same as BigEarthNet keeps them on disk, on one core and on all;
reads them back in both precisions; and opens a dataset of 600,000 records. Prints a table.
"""

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import tensorflow_datasets as tfds
from absl import flags, logging

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.data.patch_dataset import batches, load_patch_dataset
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.processes import available_cores
from sar_mixmae_jax.utils.tables import markdown_table
from tfds_builders import process_pool
from tfds_builders.bigearthnet_s1.fake_patches import write_patch
from tfds_builders.build import build
from tfds_builders.plan import BuildSettings
from tfds_builders.process_pool import Tick

FLAGS = flags.FlagValues()
PATCHES = flags.DEFINE_integer("patches", 4000, "patches to build", 64, flag_values=FLAGS)
RECORDS = flags.DEFINE_integer(
    "records", 600_000, "records of the large dataset to open", 1000, flag_values=FLAGS
)

BATCH = 64
SAMPLE_SECONDS = 0.1


class Row(NamedTuple):
    """Row of the table.

    Attributes:
      what: name of the quantity.
      value: with its unit.
    """

    what: str
    value: str


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Measure as the command line says, and print the table."""
    parse_flags(argv, FLAGS, __doc__)
    logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        rows = [*measure(Path(folder), PATCHES.value, RECORDS.value)]
    print("\n".join(markdown_table(("", ""), rows, text=2)))


def measure(folder: Path, patches: int, records: int) -> Iterator[Row]:
    """Yield all measurements.

    Args:
      folder: for the data; 1.5 MB for every patch.
      patches: to build.
      records: records of the dataset of which the start is timed.
    """
    raw = folder / "raw"
    tasks = np.array_split(np.arange(patches), 4 * available_cores())
    jobs = [(raw, numbers.tolist()) for numbers in tasks]
    for _ in process_pool.run_tasks(
        _write_raw,
        jobs,
        processes=available_cores(),
        total=patches,
        description="writing GeoTIFFs",
    ):
        pass
    yield Row("cores", str(available_cores()))
    yield from measure_building(folder, raw, patches)
    for dtype in ("float32", "float16"):
        yield from measure_reading(folder, dtype)
    yield measure_rounding(folder)
    yield from measure_start(folder, records)


def _write_raw(job: tuple[Path, list[int]], tick: Tick) -> None:
    raw, numbers = job
    for number in numbers:
        tick()
        write_patch(raw, number)


# ---- building


def measure_building(folder: Path, raw: Path, patches: int) -> Iterator[Row]:
    """Yield patches per second and peak memory, verification included, for both kinds of data."""
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "GeoTIFFs, float32": ("bigearthnet_s1/float32", {"unsplit": True}),
        "GeoTIFFs, float16": ("bigearthnet_s1/float16", {"unsplit": True, "dtype": "float16"}),
        "simulated": ("synthetic_s1/benchmark", {"patches": patches * 4 // 5}),
    }
    for what, (name, options) in kinds.items():
        for processes in sorted({1, available_cores()}):
            data_dir = folder / f"built{processes}"
            start = time.perf_counter()
            with peak_memory() as peak:
                built = build(name, data_dir, raw, options, BuildSettings(processes=processes))
            seconds = time.perf_counter() - start
            count = tfds.builder_from_directory(built).info.splits.total_num_examples
            yield Row(
                f"building, {what}, {processes} processes",
                f"{count / seconds:.0f} patches/s, at most {peak[0] / 2**20:.0f} MiB in all",
            )


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Sample the resident memory of this process and its children; the list holds the maximum.

    Pages that processes share are counted once for each of them.
    """
    peak, stop = [0.0], threading.Event()
    this = psutil.Process()

    def sample() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            total = 0
            for process in (this, *this.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.Error:  # it has ended
                    continue
            peak[0] = max(peak[0], total)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


# ---- reading


def measure_reading(folder: Path, dtype: str) -> Iterator[Row]:
    """Yield the size of a record and the rate of shuffled reading in batches."""
    data_dir = folder / f"built{available_cores()}"
    info = tfds.builder_from_directory(data_dir / f"bigearthnet_s1/{dtype}/2.0.0").info
    count = info.splits.total_num_examples
    size = sum(split.num_bytes for split in info.splits.values())
    yield Row(f"record, {dtype}", f"{size / count / 1000:.1f} kB")
    patches = load_patch_dataset(f"bigearthnet_s1/{dtype}", data_dir, "train", BANDS)
    iterator = batches(patches.source, ShuffleSampler(len(patches.source), BATCH, seed=0))
    for _ in range(10):  # what was read ahead
        next(iterator)
    start, turns = time.perf_counter(), 2 * count // BATCH
    for _ in range(turns):
        next(iterator)
    rate = turns * BATCH / (time.perf_counter() - start)
    yield Row(f"reading, {dtype}", f"{rate:.0f} patches/s")


def measure_rounding(folder: Path) -> Row:
    """Return the rounding error of float16."""
    data_dir = folder / f"built{available_cores()}"
    full, half = (
        load_patch_dataset(f"bigearthnet_s1/{dtype}", data_dir, "train", BANDS).source
        for dtype in ("float32", "float16")
    )
    errors = [
        half[index]["backscatter"].astype(np.float64) - full[index]["backscatter"]
        for index in range(min(200, len(full)))
    ]
    error = np.concatenate([values[np.isfinite(values)] for values in errors])
    return Row(
        "error of float16",
        f"{np.sqrt(np.mean(error**2)):.4f} dB rms, {np.abs(error).max():.4f} dB at most",
    )


# ---- starting


def measure_start(folder: Path, records: int) -> Iterator[Row]:
    """Yield the time to open a dataset and read a batch, of a thousand records and of many."""
    small = build("synthetic_s1/start", folder / "start", options={"patches": 1000})
    for count in (1000, records):
        data_dir = folder / f"start{count}"
        repeat(small, data_dir / "synthetic_s1/start/1.1.0", count // 1000)
        times = sorted(_time(partial(first_batch, data_dir)) for _ in range(3))
        yield Row(f"first batch of {count:,} records", f"{times[1]:.2f} s (median of 3)")


def repeat(folder: Path, to: Path, times: int) -> None:
    """Copy a dataset with the one shard of `train` repeated, as hard links."""
    shutil.copytree(folder, to)
    shard = next(to.glob("*-train.array_record*"))
    for number in range(times):
        name = f"{shard.name.rsplit('-', 3)[0]}-{number:05d}-of-{times:05d}"
        if not (to / name).exists():
            os.link(shard, to / name)
    if times > 1:
        shard.unlink()
    path = to / "dataset_info.json"
    info = json.loads(path.read_text())
    for split in info["splits"]:
        if split["name"] == "train":
            split["shardLengths"] = split["shardLengths"] * times
            split["numBytes"] = str(int(split["numBytes"]) * times)
    path.write_text(json.dumps(info))


def first_batch(data_dir: Path) -> None:
    """Open the dataset as training does, and read a batch."""
    patches = load_patch_dataset("synthetic_s1/start", data_dir, "train", BANDS)
    next(batches(patches.source, ShuffleSampler(len(patches.source), BATCH, seed=0)))


def _time(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(sys.argv)
