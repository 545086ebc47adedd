"""Measure reading without a cache, and from host and device memory, against reading one by one.

  python -m benchmarks.reading --records=4096 --batch_size=256

Builds simulated BigEarthNet patches of 120 px, reads them shuffled in turns, and then starts each
way of reading in a process of its own. Prints a table, and writes JSON with --out.
"""

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from absl import flags, logging
from tqdm import tqdm

from benchmarks.measure import Results, describe_machine, peak_host_memory, seconds
from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.data.patch_dataset import ReadOptions, batches, load_patch_dataset
from sar_mixmae_jax.data.record_cache import pack
from sar_mixmae_jax.data.record_source import Record, Source
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.training.sharding import replicate_records
from sar_mixmae_jax.training.train_step import gather_records
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.tables import markdown_table
from tfds_builders.bigearthnet_s1.fake_patches import write_patches
from tfds_builders.build import build

FLAGS = flags.FlagValues()
RECORDS = flags.DEFINE_integer("records", 4096, "patches to build", 64, flag_values=FLAGS)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "patches in a batch", 1, flag_values=FLAGS)
DTYPE = flags.DEFINE_enum(
    "dtype", "float16", ["float16", "float32"], "of the records", flag_values=FLAGS
)
TURNS = flags.DEFINE_integer("turns", 5, "turns of each way to read", 1, flag_values=FLAGS)
OUT = flags.DEFINE_string("out", None, "JSON file to write", flag_values=FLAGS)

BEFORE = "one by one, two threads"
"""The way that the others are compared with, that of version 0.1."""
READ_AHEAD = 8
"""Batches, at least as many as are read ahead."""
EPOCHS_PER_TURN = 4
"""Turns are long beside what was read ahead."""


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Measure as the command line says, and print the table."""
    parse_flags(argv, FLAGS, __doc__)
    logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        raw, data_dir = Path(folder, "raw"), Path(folder, "data")
        write_patches(raw, RECORDS.value)
        options = {"unsplit": True, "dtype": DTYPE.value}
        build("bigearthnet_s1/benchmark", data_dir, raw, options)
        results = measure(data_dir, Path(folder), BATCH_SIZE.value, TURNS.value)
    print(table(results))
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(results, indent=2) + "\n")


def measure(data_dir: Path, folder: Path, batch_size: int, turns: int) -> Results:
    """Return rates and processor time of all ways to read, and what each takes to start.

    The processor time is of this process with its threads, which other load hardly changes.

    Args:
      data_dir: with the dataset.
      folder: for caches.
      batch_size: of the batches.
      turns: number of turns of each way.
    """
    source = open_source(data_dir)
    batches_per_turn = max(1, EPOCHS_PER_TURN * len(source) // batch_size)
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    cpu: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in tqdm(range(turns), desc="reading", unit="turn"):
        for name, start in WAYS.items():  # no other stream reads ahead meanwhile
            with closing(start(source, batch_size, folder / "rates")) as stream:
                read(stream, READ_AHEAD)
                before = time.process_time()
                times[name].append(seconds(partial(read, stream, batches_per_turn)))
                cpu[name].append(time.process_time() - before)
    images = batches_per_turn * batch_size
    starts = {name: measure_start(name, data_dir, batch_size, folder) for name in WAYS}
    return {
        "machine": describe_machine(),
        "records": len(source),
        "batch_size": batch_size,
        "dtype": np.dtype(source[0]["backscatter"].dtype).name,
        "ways": {
            name: {
                "images_per_second": images / float(np.median(times[name])),
                "cpu_seconds_per_image": float(np.median(cpu[name])) / images,
                **starts[name],
            }
            for name in WAYS
        },
    }


def read(stream: Iterator[Any], number: int) -> None:
    """Read a number of batches."""
    for _ in range(number):
        jax.block_until_ready(next(stream))


def table(results: Results) -> str:
    """Return the results as a Markdown table."""
    before = results["ways"][BEFORE]["images_per_second"]
    rows = [
        (
            name,
            f"{way['images_per_second']:,.0f}",
            f"{way['images_per_second'] / before:.1f}",
            f"{1e6 * way['cpu_seconds_per_image']:.0f}",
            f"{way['start_seconds']:.2f}",
            f"{way['memory_bytes'] / 2**20:.0f}",
        )
        for name, way in results["ways"].items()
    ]
    head = ("way", "images/s", "ratio", "CPU, µs/image", "first batch, s", "peak memory, MiB")
    machine = results["machine"]
    return "\n".join(
        [
            f"{machine['processor']}, {machine['cores']} cores; {results['records']:,} records of "
            f"{results['dtype']}, batches of {results['batch_size']}",
            "",
            *markdown_table(head, rows, text=1),
        ]
    )


# ---- ways to read


class OneByOne:
    """Records without a method that reads several of them; see `Source`."""

    def __init__(self, source: Source) -> None:
        """Wrap a source."""
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        return self._source[index]


class RowByRow(ShuffleSampler):
    """The same order, with one call of Grain for every record."""

    def batch(self, step: int, part: int = 0, parts: int = 1) -> np.ndarray:
        """See `Sampler`."""
        epoch, offset = self.place(step)
        shuffled = grain.MapDataset.range(self.records).seed(self.seed).shuffle()
        first = epoch * self.records + offset
        return np.array([shuffled[row] for row in range(first, first + self.batch_size)]) % (
            self.records
        )


def open_source(data_dir: Path) -> Source:
    """Open the records of the benchmark."""
    return load_patch_dataset("bigearthnet_s1/benchmark", data_dir, "train", BANDS).source


def _one_by_one(source: Source, batch_size: int, folder: Path) -> Generator[Any]:
    del folder
    order = RowByRow(len(source), batch_size, seed=0)
    return batches(OneByOne(source), order, options=ReadOptions(threads=2))


def _from_disk(source: Source, batch_size: int, folder: Path) -> Generator[Any]:
    del folder
    return batches(source, ShuffleSampler(len(source), batch_size, seed=0))


def _from_disk_by_processes(source: Source, batch_size: int, folder: Path) -> Generator[Any]:
    del folder
    options = ReadOptions(threads=1, workers=2)
    return batches(source, ShuffleSampler(len(source), batch_size, seed=0), options=options)


def _from_memory(source: Source, batch_size: int, folder: Path) -> Generator[Any]:
    del folder
    return _from_disk(pack(source, ReadOptions()), batch_size, Path())


def _from_files(source: Source, batch_size: int, folder: Path) -> Generator[Any]:
    return _from_disk(pack(source, ReadOptions(), folder), batch_size, Path())


def _on_device(source: Source, batch_size: int, folder: Path) -> Generator[Any]:
    del folder
    images = pack(source, ReadOptions()).columns["backscatter"]
    records = replicate_records({"backscatter": images})
    shapes = (("backscatter", images.shape[1:]),)
    gather = jax.jit(lambda rows, records: gather_records(rows, records, shapes))
    order = ShuffleSampler(len(source), batch_size, seed=0)
    for step in count():
        yield gather(order.batch(step).astype(np.int32), records)


WAYS: Mapping[str, Callable[[Source, int, Path], Generator[Any]]] = {
    BEFORE: _one_by_one,
    "none": _from_disk,
    "none, two processes": _from_disk_by_processes,
    "host": _from_memory,
    "host, files": _from_files,
    "device, gather alone": _on_device,
}
"""Ways to read: batches of a source without end."""


# ---- start


def measure_start(name: str, data_dir: Path, batch_size: int, folder: Path) -> Results:
    """Start a way in a new process: seconds to the first batch, and added peak memory in bytes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        started = pool.submit(_start, name, data_dir, batch_size, folder / "rates")
        duration, peak = started.result()
    return {"start_seconds": duration, "memory_bytes": peak}


def _start(name: str, data_dir: Path, batch_size: int, folder: Path) -> tuple[float, int]:
    logging.set_verbosity(logging.ERROR)
    jax.devices()
    before = peak_host_memory()
    start = time.perf_counter()
    stream = WAYS[name](open_source(data_dir), batch_size, folder)
    jax.block_until_ready(next(stream))
    duration = time.perf_counter() - start
    for _ in range(READ_AHEAD):
        next(stream)
    stream.close()
    return duration, peak_host_memory() - before


if __name__ == "__main__":
    main(sys.argv)
