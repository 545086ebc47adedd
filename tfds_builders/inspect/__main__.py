"""Report what a built dataset contains.

  sar-mixmae inspect synthetic_s1

Read a built dataset once and write a report with pictures. With --write_statistics, training
standardises with the measured statistics instead of those that the dataset came with.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from absl import flags, logging
from tqdm import tqdm

from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import atomic_write
from sar_mixmae_jax.utils.tables import format_numbers
from tfds_builders.band_statistics import STD_KINDS, BandMoments, dataset_statistics
from tfds_builders.inspect import dataset as dataset_module
from tfds_builders.inspect.dataset import Dataset, Record, stratified_rows
from tfds_builders.inspect.inspection import TRAIN, inspect_dataset
from tfds_builders.inspect.inspection_report import write_inspection
from tfds_builders.inspect.survey import FEATURES, Survey, survey

FLAGS = flags.FlagValues()
DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of built datasets", flag_values=FLAGS)
OUT = flags.DEFINE_string(
    "out", None, "folder to write into (default: inspect/NAME)", flag_values=FLAGS
)
SPLIT = flags.DEFINE_string(
    "split", None, "splits, such as train or train+validation (default: all)", flag_values=FLAGS
)
PATCHES = flags.DEFINE_integer(
    "patches", None, "only this many patches, spread over each split", 1, flag_values=FLAGS
)
WRITE_STATISTICS = flags.DEFINE_boolean(
    "write_statistics",
    False,
    "store the statistics measured here (on train, or on --split) in the dataset's metadata.json, "
    "for training",
    flag_values=FLAGS,
)
DEVIATION = flags.DEFINE_enum(
    "deviation",
    "global",
    list(STD_KINDS),
    "standard deviation for --write_statistics: over all pixels, or the mean of per-patch ones",
    flag_values=FLAGS,
)


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Inspect the dataset named on the command line; argv[0] is the program."""
    (name,) = parse_flags(argv, FLAGS, __doc__, operands=("NAME",))
    logging.set_verbosity(logging.WARNING)
    try:
        _run(name)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def _run(name: str) -> None:
    """Read the dataset, write statistics if asked for, then report and summary."""
    dataset = dataset_module.open_dataset(name, DATA_DIR.value)
    named_splits = re.split(r"[+,]", SPLIT.value) if SPLIT.value else []
    splits = dataset_module.check_splits(dataset, named_splits)
    statistics_splits = named_splits or [TRAIN]
    if WRITE_STATISTICS.value:
        _check_statistics_splits(splits, statistics_splits)
    out = Path(OUT.value or Path("inspect", re.sub(r"[/:]", "_", name)))
    _check_out(out)
    surveys = {split: _survey(dataset, split, PATCHES.value) for split in splits}
    if WRITE_STATISTICS.value:
        moments = sum(
            (surveys[split].moments for split in statistics_splits),
            BandMoments.zeros(len(dataset.bands)),
        )
        statistics = dataset_statistics(moments, DEVIATION.value, statistics_splits, dataset.bands)
        dataset_module.write_statistics(dataset.folder, statistics)
        former, dataset = dataset, dataset_module.open_dataset(name, DATA_DIR.value)
        print(
            f"statistics before: {_format_statistics(former)}\n"
            f"statistics now:    {_format_statistics(dataset)}"
        )
    inspection = inspect_dataset(dataset, surveys, complete=PATCHES.value is None)
    files = write_inspection(inspection, out)
    print("\n".join(_summary(dataset, surveys)))
    print("\n".join(str(path) for path in files))


def _check_statistics_splits(splits: Sequence[str], statistics_splits: Sequence[str]) -> None:
    """Raise InputError unless the statistics are of all patches of splits that training may use."""
    if PATCHES.value is not None:
        raise InputError(
            "--write_statistics with --patches: found a sample, expected whole splits: leave "
            "--patches out"
        )
    if not set(statistics_splits) <= set(splits):
        raise InputError(
            f"--write_statistics: found no split {TRAIN} among {', '.join(splits)}: name the "
            "splits with --split"
        )
    if "test" in statistics_splits:
        raise InputError(
            "--write_statistics with --split=test: found the split that results are reported on, "
            "expected one that training may use"
        )


def _check_out(out: Path) -> None:
    """Create the output folder and check that it is writable.

    Raises:
      InputError: it is not.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / ".writable", b"")
        (out / ".writable").unlink()
    except OSError as error:
        raise InputError(
            f"--out {out} cannot be written ({first_line(error)}): choose another folder"
        ) from error


def _survey(dataset: Dataset, split: str, patches: int | None) -> Survey:
    """Add up the records of a split, with a progress bar."""
    indices = stratified_rows(dataset.records[split], patches)
    with tqdm(total=len(indices), desc=split, unit=" patches", disable=None, leave=False) as bar:

        def counted(batches: Iterable[list[Record]]) -> Iterator[list[Record]]:
            for batch in batches:
                yield batch
                bar.update(len(batch))

        batches = counted(dataset_module.read(dataset, split, indices, FEATURES))
        return survey(batches, len(dataset.bands), len(dataset.classes))


def _format_statistics(dataset: Dataset) -> str:
    """Return the statistics that training uses, as text."""
    mean, std = (format_numbers(dataset.statistics[name]) for name in ("mean", "std"))
    return f"mean {mean} dB, std {std} dB ({dataset.statistics['of']})"


def _summary(dataset: Dataset, surveys: Mapping[str, Survey]) -> list[str]:
    """Return the statistics of every split and band, as lines for the terminal."""
    width = max(map(len, [*surveys, "split"]))
    lines = [
        dataset.name,
        *(f"caveat: {caveat}" for caveat in dataset.caveats),
        f"{'split':<{width}}    patches  band   mean dB    std dB  per-patch std dB    nodata",
    ]
    for split, sums in surveys.items():
        values = sums.moments.describe()
        for band, name in enumerate(dataset.bands):
            lines.append(
                f"{split:<{width}}  {sums.records:>9,}  {name:<4}  {values['mean'][band]:>8.3f}"
                f"  {values['global_deviation'][band]:>8.3f}"
                f"  {values['mean_patch_deviation'][band]:>16.3f}"
                f"  {100 * values['nodata_share'][band]:>6.2f} %"
            )
    if dataset.metadata.statistics is None:
        return [*lines, "training needs statistics, and finds none: add --write_statistics"]
    return [*lines, f"training uses: {_format_statistics(dataset)}"]


if __name__ == "__main__":
    main(sys.argv)
