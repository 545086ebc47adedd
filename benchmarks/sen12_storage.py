"""Storage of SEN12-FLOOD: images once, or both dates in a record.

`python -m benchmarks.sen12_storage` builds a simulated archive of 512x512 px, with time and memory,
and the same pairs as records of both dates; reads pairs of both forms at random, as training does;
and prints a table.
"""

import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from absl import flags, logging

from benchmarks.building import Row, peak_memory
from sar_mixmae_jax.data.date_pairs import PairSource
from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.processes import available_cores
from sar_mixmae_jax.utils.tables import markdown_table
from tfds_builders import records
from tfds_builders.build import build
from tfds_builders.patch_builder import PatchBuilder
from tfds_builders.plan import BuildSettings, Plan
from tfds_builders.sen12_flood import fake_archive
from tfds_builders.sen12_flood.fake_archive import Place, Shot
from tfds_builders.shards import Example

FLAGS = flags.FlagValues()
SEQUENCES = flags.DEFINE_integer(
    "sequences", 8, "sequences of 12 images each", 3, flag_values=FLAGS
)
READS = flags.DEFINE_integer("reads", 300, "pairs to read", 10, flag_values=FLAGS)

SIZE = 512
SHOTS = tuple(Shot(6 * turn, turn >= 8, "S1A" if turn % 2 else "S1B") for turn in range(12))
CONFIG = "published"


@dataclasses.dataclass
class Config(records.PatchConfig):
    """Source of the images.

    Attributes:
      images: data folder with the dataset of single images.
    """

    images: str = ""


class BothDates(PatchBuilder):
    """Dataset of the pairs of a built dataset; a record has both dates, one below the other."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[Config]] = [Config(name="pairs")]

    def _info(self) -> tfds.core.DatasetInfo:
        info = records.dataset_info(self, size=SIZE, description="pairs", georeferenced=False)
        tall = tfds.features.Tensor(
            shape=(2 * SIZE, SIZE, len(BANDS)),
            dtype=np.float32,
            encoding=tfds.features.Encoding.BYTES,
        )
        features = {"id": tfds.features.Text(), "backscatter": tall}
        return tfds.core.DatasetInfo(
            builder=self,
            description="pairs",
            features=tfds.features.FeaturesDict(features),
            metadata=info.metadata,
        )

    def plan(self, root: Path, scratch: Path, processes: int) -> Plan:
        """Plan the pairs of `train`."""
        del root, scratch, processes
        images = self.builder_config.images
        return Plan(
            {"train": np.arange(len(pairs_in(images)))},
            read_both,
            arguments=(images,),
            records_per_shard=32,
        )


@lru_cache(maxsize=1)
def pairs_in(data_dir: str) -> PairSource:
    """Return the pairs of `train`, read from the dataset of single images."""
    patches = load_patch_dataset(f"sen12_flood/{CONFIG}", data_dir, "train", BANDS)
    return PairSource(patches.source, patches.pairs or {})


def read_both(data_dir: str, number: int) -> Example:
    """Read a record of both dates."""
    pair = pairs_in(data_dir)[number]
    both = np.concatenate([pair["before"], pair["after"]])
    return {"id": pair["id"].decode(), "backscatter": both}


def measure(folder: Path, sequences: int, reads: int) -> Iterator[Row]:
    """Yield all measurements.

    Args:
      folder: for the data; 120 MB for every sequence.
      sequences: number of sequences of the archive.
      reads: number of pairs that are read of each form.
    """
    raw, data = folder / "raw", folder / "data"
    places = {f"{number:04d}": Place(SHOTS, number) for number in range(sequences)}
    splits = {"train": list(places)[:-1], "test": list(places)[-1:]}
    fake_archive.write_archive(raw, places, splits, SIZE)
    fake_archive.pack(raw / fake_archive.FOLDER, raw / "archive.zip")
    (raw / fake_archive.FOLDER).rename(folder / "unpacked")
    for processes in sorted({1, available_cores()}):
        data = folder / f"data{processes}"
        start = time.perf_counter()
        with peak_memory() as peak:
            build(f"sen12_flood/{CONFIG}", data, raw, settings=BuildSettings(processes=processes))
        seconds = time.perf_counter() - start
        yield Row(
            f"building from the zip, {processes} processes",
            f"{len(SHOTS) * sequences / seconds:.1f} images/s, {peak[0] / 2**20:.0f} MiB in all",
        )
    once = pairs_in(str(data))
    both = BothDates(
        data_dir=str(folder / "both"),
        config=Config(name="train", images=str(data)),
        settings=BuildSettings(processes=1),
    )
    both.download_and_prepare()
    forms: dict[str, tuple[Any, Path, str]] = {
        "images once": (once, data, "sen12_flood-train*"),
        "both in a record": (both.as_data_source("train"), folder / "both", "both_dates-train*"),
    }
    for name, (source, where, pattern) in forms.items():
        size = sum(path.stat().st_size for path in where.rglob(pattern))
        yield Row(f"{name}, {len(source)} pairs on the disk", f"{size / 1e6:.0f} MB")
    for turn in range(3):
        for name, (source, _, _) in forms.items():
            order = np.random.default_rng(turn).integers(len(source), size=reads)
            times = [_time(source, int(number)) for number in order]
            low, middle, high = 1e3 * np.quantile(times, (0.1, 0.5, 0.9))
            yield Row(
                f"{name}, time to read a pair, turn {turn + 1}",
                f"{middle:.2f} ms (80 % in {low:.2f} to {high:.2f})",
            )


def _time(source: Any, number: int) -> float:
    start = time.perf_counter()
    source[number]
    return time.perf_counter() - start


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Print the table."""
    parse_flags(argv, FLAGS, __doc__)
    logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        rows = [*measure(Path(folder), SEQUENCES.value, READS.value)]
    print("\n".join(markdown_table(("", ""), rows, text=2)))


if __name__ == "__main__":
    main(sys.argv)
