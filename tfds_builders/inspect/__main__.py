"""Report what a built dataset contains.

  sar-mixmae inspect synthetic_s1

Reads a built dataset once and writes a report with pictures. With --write_statistics, training
standardises with the measured statistics instead of those that the dataset came with.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from absl import flags, logging
from tqdm import tqdm

from sar_mixmae_jax.utils.command_line import fail, parse_flags
from sar_mixmae_jax.utils.errors import InputError, UserError, first_line
from sar_mixmae_jax.utils.files import atomic_write
from sar_mixmae_jax.utils.tables import format_numbers
from tfds_builders.band_statistics import STD_KINDS, BandMoments, dataset_statistics
from tfds_builders.inspect import dataset as dataset_module
from tfds_builders.inspect.dataset import Dataset, Record, spread
from tfds_builders.inspect.report import TRAIN, write_inspection
from tfds_builders.inspect.survey import FEATURES, Survey, survey
from tfds_builders.inspect.write_statistics import write_statistics

FLAGS = flags.FlagValues()
DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of built datasets", flag_values=FLAGS)
OUT = flags.DEFINE_string(
    "out", None, "folder to write into (default: inspect/NAME)", flag_values=FLAGS
)
SPLIT = flags.DEFINE_string(
    "split", None, "splits, such as train or train+validation (default: all)", flag_values=FLAGS
)
PATCHES = flags.DEFINE_integer(
    "patches", None, "only so many patches, spread over each split", 1, flag_values=FLAGS
)
WRITE_STATISTICS = flags.DEFINE_boolean(
    "write_statistics",
    False,
    "make what was measured (on train, or on --split) the statistics that training uses",
    flag_values=FLAGS,
)
DEVIATION = flags.DEFINE_enum(
    "deviation",
    "global",
    list(STD_KINDS),
    "that --write_statistics writes: over all pixels, or the mean of those of patches",
    flag_values=FLAGS,
)


def main(argv: Sequence[str]) -> None:
    """Inspects the dataset that the command line names; the first argument is the program."""
    (name,) = parse_flags(argv, FLAGS, __doc__, operands=("NAME",))
    logging.set_verbosity(logging.WARNING)
    try:
        _run(name)
    except UserError as error:
        fail(error)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def _run(name: str) -> None:
    """Looks, writes, and prints."""
    dataset = dataset_module.open_dataset(name, DATA_DIR.value)
    named = re.split(r"[+,]", SPLIT.value) if SPLIT.value else []
    splits = dataset_module.check_splits(dataset, named)
    own = named or [TRAIN]
    if WRITE_STATISTICS.value:
        _check_writable(splits, own)
    out = Path(OUT.value or Path("inspect", re.sub(r"[/:]", "_", name)))
    _prepare(out)
    surveys = {split: _survey(dataset, split, PATCHES.value) for split in splits}
    if WRITE_STATISTICS.value:
        moments = sum(
            (surveys[split].moments for split in own), BandMoments.zeros(len(dataset.bands))
        )
        statistics = dataset_statistics(moments, DEVIATION.value, own, dataset.bands)
        write_statistics(dataset.folder, statistics)
        before, dataset = dataset, dataset_module.open_dataset(name, DATA_DIR.value)
        print(f"statistics before: {_told(before)}\nstatistics now:    {_told(dataset)}")
    files = write_inspection(dataset, surveys, out, whole=PATCHES.value is None)
    print("\n".join(_table(dataset, surveys)))
    print("\n".join(str(path) for path in files))


def _check_writable(splits: Sequence[str], own: Sequence[str]) -> None:
    """Refuses statistics that would not be of all patches of the splits that are meant."""
    if PATCHES.value is not None:
        raise InputError(
            "--write_statistics with --patches: found a sample, expected whole splits: leave "
            "--patches out"
        )
    if not set(own) <= set(splits):
        raise InputError(
            f"--write_statistics: found no split {TRAIN} among {', '.join(splits)}: say with "
            "--split which to take"
        )
    if "test" in own:
        raise InputError(
            "--write_statistics with --split=test: found the split that results are reported on, "
            "expected one that training may see"
        )


def _prepare(out: Path) -> None:
    """Makes the folder, and tries whether it can be written.

    Raises:
      InputError: it cannot.
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
    """The pass over a split, with a progress bar."""
    indices = spread(dataset.records[split], patches)
    with tqdm(total=len(indices), desc=split, unit=" patches", disable=None, leave=False) as bar:

        def counted(batches: Iterable[list[Record]]) -> Iterator[list[Record]]:
            for batch in batches:
                yield batch
                bar.update(len(batch))

        batches = counted(dataset_module.read(dataset, split, indices, FEATURES))
        return survey(batches, len(dataset.bands), len(dataset.classes))


def _told(dataset: Dataset) -> str:
    """The statistics that training uses."""
    mean, std = (format_numbers(dataset.statistics[name]) for name in ("mean", "std"))
    return f"mean {mean} dB, deviation {std} dB ({dataset.statistics['of']})"


def _table(dataset: Dataset, surveys: Mapping[str, Survey]) -> list[str]:
    """What is most important, for the terminal."""
    width = max(map(len, [*surveys, "split"]))
    lines = [
        dataset.name,
        *(f"caveat: {caveat}" for caveat in dataset.caveats),
        f"{'split':<{width}}    patches  band   mean dB  deviation dB  per patch dB    nodata",
    ]
    for split, found in surveys.items():
        values = found.moments.describe()
        for band, name in enumerate(dataset.bands):
            lines.append(
                f"{split:<{width}}  {found.records:>9,}  {name:<4}  {values['mean'][band]:>8.3f}"
                f"  {values['global_deviation'][band]:>12.3f}"
                f"  {values['mean_patch_deviation'][band]:>12.3f}"
                f"  {100 * values['nodata_share'][band]:>6.2f} %"
            )
    return [*lines, f"training uses: {_told(dataset)}"]


if __name__ == "__main__":
    main(sys.argv)
