"""What all builders of patch datasets share: plan, write shards on all cores, verify, publish.

TFDS calls `_download_and_prepare` whichever way a build was started, by `tfds_builders.build`, by
`tfds build`, or with a Beam runner; all three write the same shards, checked in the same way.
"""

import abc
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

import sar_mixmae_jax
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders import finalize, plan, process_pool, shards, staging
from tfds_builders.bad_files import BadFile, BadFilesError, bad_files_table, write_table
from tfds_builders.plan import BuildSettings, Plan
from tfds_builders.process_pool import Tick
from tfds_builders.shards import Report, Task

TABLE_ROWS = 20
"""Of bad files that are printed; more of them go into a file too."""


class Written(NamedTuple):
    """A shard that is on the disk.

    Attributes:
      task: what was to be written.
      report: what was.
    """

    task: Task
    report: Report


class PatchBuilder(FileReaderBuilder):
    """A builder of a patch dataset."""

    MANUAL_DOWNLOAD_INSTRUCTIONS: ClassVar[str | None] = None
    ACCEPTS_ANY_CONFIG_NAME: ClassVar[bool] = False
    """Whether a config of any name may be built without options, since the raw data differ."""
    ACCEPTS_SINGLE_FILE: ClassVar[bool] = False
    """Whether the raw data may be a single file, which `plan` then gets in place of a folder."""

    def __init__(
        self,
        *,
        file_format: str | None = None,
        settings: BuildSettings | None = None,
        **kwargs: Any,
    ) -> None:
        """As TFDS makes builders; array_record is the format, since training reads no other.

        Args:
          file_format: array_record, if anything.
          settings: how to build.
          **kwargs: arguments of the TFDS builder.
        """
        self.settings = settings or BuildSettings()
        super().__init__(file_format=file_format or "array_record", **kwargs)

    @abc.abstractmethod
    def plan(self, root: Path, scratch: Path, processes: int) -> Plan:
        """Looks at the raw data.

        Args:
          root: folder of the raw data, or their file with `ACCEPTS_SINGLE_FILE`; unused where the
            dataset has no raw data.
          scratch: an empty folder for what reading needs besides; it is removed after the build.
          processes: how many may be used.

        Raises:
          InputError: this is no such dataset.
        """

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Builds the dataset unless it is there; see TFDS."""
        if self.data_path.exists():
            return
        versions = Path(self.data_path).parent
        with staging.lock_staging(versions):
            super().download_and_prepare(**kwargs)
            staging.remove_staging(
                staging.staging_dir(versions, str(self.version))
            )  # it is published

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig | None = None,
    ) -> None:
        """Fills `self._data_dir`, a folder that TFDS publishes, or removes if anything fails."""
        if self.info.file_format.value != "array_record":
            raise InputError(
                f"found the file format {self.info.file_format.value}, expected array_record, "
                "which is what training reads: leave --file_format out"
            )
        how = self.settings
        processes = how.processes or process_pool.available_cores()
        unfinished = Path(self._data_dir)
        with staging.open_staging(unfinished, str(self.version)) as folder:
            root = Path()
            if self.MANUAL_DOWNLOAD_INSTRUCTIONS:
                root = how.raw or Path(dl_manager.manual_dir)
            planned = self.plan(root, folder / staging.SCRATCH, processes)
            if not planned.bad_files:  # which tell more
                sizes = {name: len(rows) for name, rows in planned.items.items()}
                finalize.check_splits(sizes, planned.notes)
            facts = {
                "dataset": self.info.full_name,
                "options": self.builder_config.options(),
                "features": str(self.info.features),
                "order": how.order_seed,
                "version": sar_mixmae_jax.__version__,
            }
            staging.check_plan(folder, plan.fingerprint(planned, facts))
            tasks = plan.tasks(planned, folder, self.info.features, how.order_seed)
            drop_stale(tasks, processes)
            written = write_missing(tasks, processes, download_config)
            problems = [*planned.bad_files, *(p for one in written for p in one.report.problems)]
            counts = {**dict.fromkeys(planned.items, 0), **finalize.records_of(written)}
            if problems and not (how.skip_bad and all(counts.values())):
                for one in written:
                    if one.report.problems:  # mended files are read again
                        shards.remove(one.task)
                _tell(problems, folder)
            if problems and not how.skip_bad:
                raise BadFilesError(problems)
            finalize.check_splits(counts, planned.notes)
            _verify(written, processes)
            finalize.describe(self, planned, written, problems)
            finalize.link(self, written, problems, unfinished)


def write_missing(
    tasks: Sequence[Task], processes: int, config: tfds.download.DownloadConfig | None
) -> list[Written]:
    """Writes the shards that are not there yet, in processes, or with Beam if `config` says so."""
    missing = [task for task in tasks if shards.read_report(task) is None]
    if config and (config.beam_runner or config.beam_options):
        process_pool.run_with_beam(
            shards.write, missing, runner=config.beam_runner, options=config.beam_options
        )
    else:
        total = sum(len(task.items) for task in missing)
        run = partial(
            process_pool.run_tasks, processes=processes, total=total, description="building"
        )
        for _ in run(shards.write, missing):
            pass
    written = []
    for task in tasks:
        report = shards.read_report(task)
        if report is None:
            raise InputError(
                f"{task.path}: found no such shard after it was written: give the command again"
            )
        written.append(Written(task, report))
    return written


def drop_stale(tasks: Sequence[Task], processes: int) -> None:
    """Removes shards of an earlier call that had bad files, or whose raw files have changed."""
    there = [task for task in tasks if shards.read_report(task)]
    run = partial(process_pool.run_tasks, processes=processes, total=len(there), unit="shards")
    stale = sum(run(_drop_if_stale, there, description="checking raw files"))
    if there:
        print(f"{len(there) - stale} of {len(tasks)} shards are there already", file=sys.stderr)


def _drop_if_stale(task: Task, tick: Tick) -> bool:
    tick()
    report = shards.read_report(task)
    stale = report is None or bool(report.problems) or report.stamp != shards.stamp(task)
    if stale:
        shards.remove(task)
    return stale


def _tell(problems: Sequence[BadFile], folder: Path) -> None:
    """Prints the bad files; more than fit go into a file too."""
    print(bad_files_table(problems, TABLE_ROWS), file=sys.stderr)
    if len(problems) > TABLE_ROWS:
        write_table(problems, folder / finalize.BAD_FILES)
        print(f"all of them: {folder / finalize.BAD_FILES}", file=sys.stderr)


def _verify(written: Sequence[Written], processes: int) -> None:
    """Reads all shards back.

    Raises:
      InputError: one is not what was written; it is removed, so that the next build makes it again.
    """
    total = sum(one.report.records for one in written)
    run = partial(process_pool.run_tasks, processes=processes, total=total, description="verifying")
    wrong = [error for error in run(_check, [one.task for one in written]) if error]
    if wrong:
        raise InputError(
            f"{wrong[0]} (in all, {len(wrong)} of {len(written)} shards): check the disk, then "
            "give the same command again, which makes only what is missing"
        )


def _check(task: Task, tick: Tick) -> str | None:
    """What is wrong with a shard on the disk, which is then removed."""
    report = shards.read_report(task)
    wrong = shards.verify(task, report, tick) if report else "its report is gone"
    if wrong:
        shards.remove(task)
        return f"{task.path}: {wrong}"
    return None
