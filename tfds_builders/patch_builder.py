"""What all builders of patch datasets share: plan, write shards on all cores, verify, publish.

A dataset says in `plan` which items each split has and how one is read. TFDS calls
`_download_and_prepare` whichever way a build was started, by `tfds_builders.build`, by `tfds
build`, or with a Beam runner; all three write the same shards, checked in the same way.
"""

import abc
import dataclasses
import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import splits

import sar_mixmae_jax
from sar_mixmae_jax.bands import BANDS
from sar_mixmae_jax.errors import InputError
from tfds_builders import cluster, shards, stage, workers
from tfds_builders.moments import Moments
from tfds_builders.problems import BadFilesError, Problem, table, write_table
from tfds_builders.shards import Example, Report, Shard, Task
from tfds_builders.workers import Tick

PATCHES_PER_SHARD = 1_000
"""About 100 MB of 120x120x2 float32; what a killed build loses is one of them for every core."""

TABLE_ROWS = 20
"""Of bad files that are printed; more of them go into a file too."""

BAD_FILES = "bad_files.tsv"


@dataclasses.dataclass(frozen=True)
class Build:
    """How a dataset is built, whatever it is.

    Attributes:
      skip_bad: leave out what cannot be read, and count it; else the build stops with a table.
      processes: how many work at once; None: one for every core.
      order_seed: of the order of the records.
    """

    skip_bad: bool = False
    processes: int | None = None
    order_seed: int = 0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a dataset consists of.

    Attributes:
      items: of every split, plain data: a list, or an array whose rows are items.
      read: makes a record, of `arguments` and an item; a function of a module.
      arguments: the same for every item, plain data.
      problems: what was found to be missing or wrong before any patch was read.
      facts: for the dataset's metadata.
      notes: sentences for whoever builds it, kept in the metadata too.
    """

    items: dict[str, Any]
    read: Callable[..., Example]
    arguments: tuple[Any, ...] = ()
    problems: Sequence[Problem] = ()
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Written:
    """A shard of a split that is on the disk.

    Attributes:
      split: its name.
      task: what was to be written.
      report: what was.
    """

    split: str
    task: Task
    report: Report


class PatchBuilder(tfds.core.ShardBasedBuilder):
    """A builder of a patch dataset."""

    MANUAL_DOWNLOAD_INSTRUCTIONS: ClassVar[str | None] = None

    def __init__(
        self, *, file_format: str | None = None, build: Build | None = None, **settings: Any
    ) -> None:
        """As TFDS makes builders; training reads array_record, which is therefore the default."""
        self._build = build or Build()
        super().__init__(file_format=file_format or "array_record", **settings)

    @abc.abstractmethod
    def plan(self, root: Path, scratch: Path, processes: int) -> Plan:
        """Looks at the raw data.

        Args:
          root: folder of the raw data; of no meaning for a dataset that has none.
          scratch: an empty folder for what reading needs besides; it is removed after the build.
          processes: how many may be used.

        Raises:
          InputError: this is no such dataset.
        """

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Callable[[], Iterator[Example]]]]:
        """What TFDS asks of a ShardBasedBuilder; not used, since shards are written here."""
        raise NotImplementedError

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig | None = None,
    ) -> None:
        """Fills `self._data_dir`, a folder that TFDS publishes, or removes if anything fails."""
        config = download_config or tfds.download.DownloadConfig()
        processes = self._build.processes or workers.cores()
        unfinished, version = Path(self._data_dir), str(self.version)
        folder = stage.path(version, unfinished)
        with stage.claim(folder):
            stage.remove_others(unfinished, version)
            scratch = folder / stage.SCRATCH
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            root = Path(dl_manager.manual_dir) if self.MANUAL_DOWNLOAD_INSTRUCTIONS else Path()
            plan = self.plan(root, scratch, processes)
            stage.check_plan(folder, self._fingerprint(plan))
            tasks = self._tasks(plan, folder)
            written = self._write(tasks, processes, config)
            problems = [*plan.problems, *(p for one in written for p in one.report.problems)]
            if problems and not self._build.skip_bad:
                _stop(problems, written, folder)
            _verify(written, processes)
            self._describe(plan, written, problems)
            unfinished.rmdir()
            folder.rename(unfinished)
        self._tidy(written, problems, unfinished)

    def _fingerprint(self, plan: Plan) -> str:
        """Of all that decides what is in the shards."""
        facts = {
            "dataset": self.info.full_name,
            "options": self.builder_config.options(),
            "features": str(self.info.features),
            "arguments": repr(plan.arguments),
            "format": self.info.file_format.value,
            "order": [self._build.order_seed, PATCHES_PER_SHARD],
            "version": sar_mixmae_jax.__version__,
        }
        return stage.fingerprint(facts, plan.items)

    def _tasks(self, plan: Plan, folder: Path) -> list[tuple[str, Task]]:
        """The shards of every split: items dealt out at random, in their own order inside a shard.

        Reading them in that order goes once through a folder or a scene.
        """
        tasks = []
        read = partial(plan.read, *plan.arguments)
        for split, items in plan.items.items():
            order = np.random.default_rng(self._build.order_seed).permutation(len(items))
            count = -(-len(items) // PATCHES_PER_SHARD)
            for number in range(count):
                shard = Shard(read, shards.take(items, order[number::count]))
                path = folder / f"{split}-{number:05d}"
                tasks.append(
                    (split, Task(path, shard, self.info.features, self.info.file_format.value))
                )
        return tasks

    def _write(
        self,
        tasks: list[tuple[str, Task]],
        processes: int,
        config: tfds.download.DownloadConfig,
    ) -> list[Written]:
        """Writes the shards that are missing."""
        missing = [task for _, task in tasks if shards.read_report(task) is None]
        if config.beam_runner or config.beam_options:
            cluster.run(
                shards.write, missing, runner=config.beam_runner, options=config.beam_options
            )
        else:
            total = sum(len(task.shard.items) for task in missing)
            run = partial(workers.run, processes=processes, total=total, description="building")
            for _ in run(shards.write, missing):
                pass
        written = []
        for split, task in tasks:
            report = shards.read_report(task)
            if report is None:
                raise InputError(f"{task.path}: found no such shard after it was written")
            written.append(Written(split, task, report))
        return written

    def _describe(self, plan: Plan, written: list[Written], problems: Sequence[Problem]) -> None:
        """Sets splits and metadata.

        Raises:
          InputError: a split is empty.
        """
        infos, measured = [], {}
        for split, items in plan.items.items():
            reports = [one.report for one in written if one.split == split and one.report.records]
            if not reports:
                _drop_bad(written)
                raise InputError(
                    f"split {split} has no patch that can be used, of {len(items)} that it names"
                )
            infos.append(
                splits.SplitInfo(
                    name=split,
                    shard_lengths=[report.records for report in reports],
                    num_bytes=sum(report.size for report in reports),
                    filename_template=self._get_filename_template(split_name=split),
                )
            )
            moments = sum((report.moments for report in reports), Moments.none(len(BANDS)))
            measured[split] = moments.describe()
        self.info.set_splits(splits.SplitDict(infos))
        planned = sum(len(items) for items in plan.items.values())
        records = sum(one.report.records for one in written)
        metadata = self.info.metadata
        metadata.update(plan.facts)
        metadata["notes"] = list(plan.notes)
        metadata["measured"] = measured
        metadata["statistics"] = metadata["statistics"] or own_statistics(measured)
        metadata["left_out"] = {"patches": planned - records, "bad_files": len(problems)}
        metadata["checksum"] = _checksum(written)

    def _tidy(self, written: list[Written], problems: Sequence[Problem], folder: Path) -> None:
        """Gives the shards in the unfinished dataset the names that TFDS reads; empty ones go."""
        for split in {one.split: None for one in written}:
            template = self._get_filename_template(split_name=split)
            ours = [one for one in written if one.split == split]
            full = [one for one in ours if one.report.records]
            for number, one in enumerate(full):
                name = template.sharded_filepath(shard_index=number, num_shards=len(full)).name
                (folder / one.task.path.name).rename(folder / name)
            for one in ours:
                (folder / one.task.path.name).unlink(missing_ok=True)
                (folder / one.task.report_path.name).unlink()
        (folder / stage.PLAN).unlink()
        if problems:
            write_table(problems, folder / BAD_FILES)


def own_statistics(
    measured: Mapping[str, Mapping[str, Any]], split: str = "train"
) -> dict[str, Any]:
    """What training standardises with where nothing is published: of all valid pixels of a split.

    Args:
      measured: `Moments.describe()` of every split.
      split: which to take; never one that results are reported on.
    """
    values = measured[split]
    return {
        "mean": values["mean"],
        "std": values["global_deviation"],
        "of": f"all valid pixels of the {values['patches']} patches of the split {split}",
    }


def _stop(problems: Sequence[Problem], written: list[Written], folder: Path) -> NoReturn:
    """Prints the bad files, and keeps the shards that have none of them."""
    _drop_bad(written)
    print(table(problems, TABLE_ROWS), file=sys.stderr)
    if len(problems) > TABLE_ROWS:
        write_table(problems, folder / BAD_FILES)
        print(f"all of them: {folder / BAD_FILES}", file=sys.stderr)
    raise BadFilesError(problems)


def _drop_bad(written: list[Written]) -> None:
    """Removes the shards with bad files, so that mended ones are read again."""
    for one in written:
        if one.report.problems:
            shards.remove(one.task)


def _verify(written: list[Written], processes: int) -> None:
    """Reads all shards back.

    Raises:
      InputError: one is not what was written; it is removed, so that the next build makes it again.
    """
    total = sum(one.report.records for one in written)
    run = partial(workers.run, processes=processes, total=total, description="verifying")
    tasks = [one.task for one in written]
    wrong = [error for error in run(_check, tasks) if error]
    if wrong:
        raise InputError(
            f"{wrong[0]} (in all, {len(wrong)} of {len(tasks)} shards): check the disk, then give "
            "the same command again, which makes only what is missing"
        )


def _check(task: Task, tick: Tick) -> str | None:
    """What is wrong with a shard on the disk, which is then removed."""
    report = shards.read_report(task)
    wrong = shards.verify(task, report, tick) if report else "its report is gone"
    if wrong:
        shards.remove(task)
        return f"{task.path}: {wrong}"
    return None


def _checksum(written: list[Written]) -> str:
    """SHA-256 of the checksums of all shards: of every record in its order."""
    digest = hashlib.sha256()
    for one in written:
        digest.update(f"{one.split} {one.report.records} {one.report.checksum}\n".encode())
    return digest.hexdigest()
